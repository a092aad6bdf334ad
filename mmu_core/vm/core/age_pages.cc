#include "mmu_core/vm/core/age_pages.h"

#include <algorithm>

#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {
namespace {

// With the TDP MMU the shadow MMU maps what nested guests use; those have
// tables, and as long as there is a shadow page of one the count says so.
bool MayHaveShadowSptes(const VmCore& vm) {
  return vm.shadow != nullptr &&
         (!vm.uses_tdp_mmu() ||
          vm.shadow->pages().tracking().AnyIndirectPages());
}

}  // namespace

AgeResult AgePages(VmCore& vm, int as_id, GfnRange range, AgeMode mode,
                   MmuCost* cost, Gfn young_until) {
  AgeResult result;
  result.young.resize((range.pages() + 63) / 64);
  const bool both = MayHaveShadowSptes(vm);
  if (both) result.mapped.resize(result.young.size());
  vm.tdp.Age(as_id, range, mode, result, cost);
  result.was_fast = result.young_page_count != 0;
  if (both) {
    RcuReadGuard rcu;
    for (const Memslot* slot : vm.slots.Active(as_id).SlotsIn(range)) {
      vm.shadow->age().Age(*slot, range.Intersect(slot->range()), range, mode,
                           result, cost);
    }
    CountPages(result);
  }
  if (young_until > range.start) {
    MarkYoung(result, std::min(young_until, range.end) - range.start);
    result.young_until = std::max(
        result.young_until, young_until > range.end ? young_until : Gfn(0));
  }
  return result;
}

}  // namespace mmu
