#include "mmu_core/vm/jobs/age_range.h"

#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/core/age_pages.h"
#include "mmu_core/vm/core/op_timer.h"
#include "mmu_core/vm/core/slot_ranges.h"

namespace mmu {

absl::StatusOr<AgeResult> AgeRange(VmCore& vm, GfnRange range, AgeMode mode,
                                   MmuCost* cost, Gfn young_until,
                                   MissingSlots missing, AgeLock lock) {
  OpTimer timer(cost, &vm.counters.aging);
  {
    RcuReadGuard rcu;
    if (range.empty() || missing == MissingSlots::kRefuse) {
      if (absl::Status s = CheckCovered(vm.slots.Active(0), range); !s.ok()) {
        return s;
      }
    }
  }
  AgeResult result =
      AgePages(vm, /*as_id=*/0, range, mode, lock, timer.cost(), young_until);
  vm.counters.of(vm.guest_mmu())
      .CountAged(result.young_page_count, result.old_page_count);
  return result;
}

}  // namespace mmu
