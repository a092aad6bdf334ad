// Access flags of stage-2 leafs (AGE-19).

#ifndef MMU_CORE_STAGE2_STAGE2_AGE_H_
#define MMU_CORE_STAGE2_STAGE2_AGE_H_

#include "mmu_core/aging/aging.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Tests, or tests and clears, AF in the leafs that overlap `range`, and adds
// the young pages to `result`, whose bitmap covers `range`. No TLBI: a
// translation that a vCPU has cached keeps the page from becoming young until
// it is dropped. Releases the lock now and then.
template <TableGeometry G>
void AgeStage2(const Stage2State<G>& state, MmuWriteLocked& lock,
               GfnRange range, AgeMode mode, AgeResult& result, MmuCost* cost);

// The same without mmu_lock (AGE-32). Where an entry changes meanwhile, its
// page may look as young as before or after the change. REQUIRES: an RCU read
// section; the hardware sets AF. (Where a fault sets it, KVM ages with the
// lock, and so does this MMU: AGE-19.)
template <TableGeometry G>
void AgeStage2Lockless(const Stage2State<G>& state, GfnRange range,
                       AgeMode mode, AgeResult& result, MmuCost* cost);

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_STAGE2_AGE_H_
