// Unmapping a range of stage-2 tables.

#ifndef MMU_CORE_STAGE2_STAGE2_UNMAP_H_
#define MMU_CORE_STAGE2_STAGE2_UNMAP_H_

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Empties every leaf that overlaps `range`, a larger leaf as a whole, and frees
// the tables that are empty then (ARM-02). With FEAT_TLBIRANGE one invalidation
// of the range follows, before the lock is dropped; without it, one for each
// leaf (ARM-39). Writes that the processor has noted are marked in the log of
// `slot` first (stage2_dirty.h); null: no slot has the range. True if anything
// was unmapped.
template <TableGeometry G>
bool UnmapStage2(const Stage2State<G>& state, MmuWriteLocked& lock,
                 const Memslot* slot, GfnRange range, FlushReason reason,
                 MayYield may_yield, MmuCost* cost);

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_STAGE2_UNMAP_H_
