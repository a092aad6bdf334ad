#include "mmu_core/vm/age_pages.h"

#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

// With the TDP MMU the shadow MMU maps what nested guests use; those have
// tables, and as long as there is a shadow page of one the count says so.
bool MayHaveShadowSptes(const VmState& vm) {
  return vm.shadow != nullptr &&
         (!vm.uses_tdp_mmu() ||
          vm.shadow->pages().tracking().AnyIndirectPages());
}

}  // namespace

AgeResult AgePages(VmState& vm, int as_id, GfnRange range, AgeMode mode,
                   MmuCost* cost) {
  AgeResult result;
  result.young.resize((range.pages() + 63) / 64);
  const bool both = MayHaveShadowSptes(vm);
  if (both) result.mapped.resize(result.young.size());
  vm.tdp.Age(as_id, range, mode, result, cost);
  if (!both) return result;
  RcuReadGuard rcu;
  for (const Memslot* slot : vm.slots.Active(as_id).SlotsIn(range)) {
    vm.shadow->age().Age(*slot, range.Intersect(slot->range()), range, mode,
                         result, cost);
  }
  CountPages(result);
  return result;
}

}  // namespace mmu
