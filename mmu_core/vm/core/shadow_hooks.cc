#include "mmu_core/vm/core/shadow_hooks.h"

#include "mmu_core/base/level.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/stats/labels.h"

namespace mmu {

const Memslot* ShadowHooks::SlotOf(int as_id, Gfn gfn) {
  return slots_.Active(as_id).FindByGfn(gfn);
}

bool ShadowHooks::WriteProtectGfn(const MmuWriteLocked& lock,
                                  const Memslot& slot, Gfn gfn) {
  return mmus_.WriteProtectGfnInOthers(MmuKind::kShadow, lock, slot, gfn,
                                       Level::k4K);
}

}  // namespace mmu
