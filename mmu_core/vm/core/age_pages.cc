#include "mmu_core/vm/core/age_pages.h"

#include <algorithm>

#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

AgeResult AgePages(VmCore& vm, int as_id, GfnRange range, AgeMode mode,
                   MmuCost* cost, Gfn young_until) {
  AgeResult result;
  {
    RcuReadGuard rcu;
    result = vm.mmus.Age(vm.slots.Active(as_id), as_id, range, mode, cost);
  }
  if (young_until > range.start) {
    MarkYoung(result, std::min(young_until, range.end) - range.start);
    result.young_until = std::max(
        result.young_until, young_until > range.end ? young_until : Gfn(0));
  }
  return result;
}

}  // namespace mmu
