#include "mmu_core/stage2/s2_root.h"

#include <sys/mman.h>

#include <cerrno>
#include <memory>
#include <new>

#include "absl/status/status.h"
#include "mmu_core/base/aligned_block.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/sync/refill.h"

namespace mmu {

template <TableGeometry G>
absl::StatusOr<std::unique_ptr<S2Root<G>>> S2Root<G>::Create(
    int tables, TableBudget& budget) {
  constexpr uint64_t kUnits = G::kGranuleBytes / kPageSize;
  const uint64_t units = static_cast<uint64_t>(tables) * kUnits;
  const auto take = [&] {
    const TableBudget::Grant grant = budget.Take(1, units);
    return Refill{.enough = grant.tables == 1,
                  .in_grace_period = grant.in_grace_period};
  };
  if (!FillFromPool(take)) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     {Reason::kMmuPagesExhausted, "", ENOMEM},
                     "as many page tables are in use as may be; delete a VM or "
                     "raise the limit");
  }
  void* const memory =
      MapAlignedBlock(static_cast<uint64_t>(tables) * G::kGranuleBytes);
  std::unique_ptr<S2Root> root;
  if (memory != nullptr) {
    auto* const first = new (memory) S2Table<G>[static_cast<size_t>(tables)];
    root.reset(new (std::nothrow) S2Root(first, tables, budget));
    if (root == nullptr) munmap(memory, units * kPageSize);
  }
  if (root == nullptr) {
    budget.Return(units);
    return NoMemory("", "make the root of the stage-2 tables");
  }
  return root;
}

template <TableGeometry G>
S2Root<G>::~S2Root() {
  const uint64_t bytes = static_cast<uint64_t>(count_) * G::kGranuleBytes;
  munmap(tables_, bytes);
  budget_.Return(bytes / kPageSize);
}

template class S2Root<Arm4K>;
template class S2Root<Arm16K>;
template class S2Root<Arm64K>;

}  // namespace mmu
