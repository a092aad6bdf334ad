#include "mmu_core/vm/core/age_pages.h"

#include <algorithm>

#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

AgeResult AgePages(VmCore& vm, int as_id, GfnRange range, AgeMode mode,
                   const AgeOptions& options, MmuCost* cost, Gfn young_until) {
  if (young_until <= range.start) {
    return vm.mmus.Age(vm.slots, as_id, range, mode, options, cost);
  }
  AgeResult result = vm.mmus.Age(vm.slots, as_id, range, mode, options, cost,
                                 KeepMapped::kYes);
  if (result.mapped.empty()) return result;  // it was refused
  // Pages of the huge leaf that were unmapped since then are not young.
  MarkYoung(result, std::min(young_until, range.end) - range.start);
  result.young_until = std::max(result.young_until,
                                young_until > range.end ? young_until : Gfn(0));
  return result;
}

}  // namespace mmu
