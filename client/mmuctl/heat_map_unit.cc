#include "client/mmuctl/heat_map_unit.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/page_bitmap.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {
namespace {

constexpr int64_t kMaxUnits = 4'194'304;

// Units begin at multiples of their size, so the ends of a memslot may lie
// within one.
int64_t UnitsOf(const std::vector<GpaRange>& memslots, int64_t unit_bytes) {
  int64_t units = 0;
  for (const GpaRange& memslot : memslots) {
    if (memslot.size_bytes <= 0) continue;
    units += (memslot.end_bytes() - 1) / unit_bytes -
             memslot.gpa_bytes / unit_bytes + 1;
  }
  return units;
}

}  // namespace

v1::PageSize SmallestUnit(const std::vector<GpaRange>& memslots) {
  if (UnitsOf(memslots, kPageBytes) <= kMaxUnits) return v1::PAGE_SIZE_4K;
  if (UnitsOf(memslots, int64_t{1} << 21) <= kMaxUnits) {
    return v1::PAGE_SIZE_2M;
  }
  return v1::PAGE_SIZE_1G;
}

absl::StatusOr<v1::PageSize> SmallestUnitOf(Client& client,
                                            const std::string& vm) {
  v1::ListMemslotsRequest request;
  request.set_vm(vm);
  request.set_page_size(1000);
  std::vector<GpaRange> memslots;
  do {
    const auto page = client.vms().ListMemslots(request);
    if (!page.ok()) return page.status();
    for (const v1::Memslot& memslot : page->memslots()) {
      memslots.push_back({memslot.gpa_bytes(), memslot.size_bytes()});
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return SmallestUnit(memslots);
}

}  // namespace mmud::client
