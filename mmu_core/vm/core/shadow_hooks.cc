#include "mmu_core/vm/core/shadow_hooks.h"

#include "mmu_core/base/level.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

const Memslot* ShadowHooks::SlotOf(int as_id, Gfn gfn) {
  return vm_.slots.Active(as_id).FindByGfn(gfn);
}

bool ShadowHooks::WriteProtectGfn(const MmuWriteLocked& lock,
                                  const Memslot& slot, Gfn gfn) {
  return vm_.mmus.WriteProtectGfnInOthers(MmuKind::kShadow, lock, slot, gfn,
                                          Level::k4K);
}

bool ShadowHooks::MayMapWritable(const MmuReadLocked& lock, const Memslot& slot,
                                 Gfn gfn, Prefetched prefetched) {
  return slot.shadow_rmaps() == nullptr ||
         vm_.shadow->gate().MayMapWritable(lock, slot, gfn, prefetched);
}

bool ShadowHooks::MayMapWritable(const MmuWriteLocked& lock,
                                 const Memslot& slot, Gfn gfn,
                                 Prefetched prefetched) {
  return slot.shadow_rmaps() == nullptr ||
         vm_.shadow->gate().MayMapWritable(lock, slot, gfn, prefetched);
}

}  // namespace mmu
