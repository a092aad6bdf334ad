#include "server/control/slot_ranges.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/core/vm_config.h"
#include "server/control/managed_vm.h"

namespace mmud {

std::vector<mmu::GfnRange> SlotRanges(const ManagedVm& vm) {
  std::vector<mmu::GfnRange> ranges;
  for (const mmu::MemslotInfo& slot : vm.SortedSlots()) {
    const mmu::GfnRange range = mmu::GfnRange::Of(
        mmu::ToGfn(slot.config.gpa), slot.config.size_bytes >> mmu::kPageShift);
    if (!ranges.empty() && ranges.back().end == range.start) {
      ranges.back().end = range.end;
    } else {
      ranges.push_back(range);
    }
  }
  return ranges;
}

absl::Status CheckInsideSlots(mmu::GfnRange range,
                              const std::vector<mmu::GfnRange>& slots,
                              absl::string_view field) {
  const auto after = std::upper_bound(
      slots.begin(), slots.end(), range.start,
      [](mmu::Gfn gfn, mmu::GfnRange slot) { return gfn < slot.start; });
  if (after != slots.begin() && (after - 1)->Contains(range)) {
    return absl::OkStatus();
  }
  mmu::ErrorDetail detail;
  detail.reason = mmu::Reason::kGpaOutOfRange;
  detail.field = std::string(field);
  return mmu::MakeError(
      absl::StatusCode::kOutOfRange, detail,
      absl::StrCat(field, " is ", range.bytes(), " bytes from ",
                   mmu::ToGpa(range.start).value(),
                   "; not all of it lies within memslots"));
}

}  // namespace mmud
