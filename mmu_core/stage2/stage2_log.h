// Write protection of stage-2 leafs, so that the next write to a page is
// detected.

#ifndef MMU_CORE_STAGE2_STAGE2_LOG_H_
#define MMU_CORE_STAGE2_STAGE2_LOG_H_

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/mmu.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Takes S2AP[1] from every leaf that overlaps `range`, where a log begins
// (DL-02). A granule or block that only overlaps the range is protected as a
// whole. A page gets DBM if the processor manages the dirty state. The change
// is in place; the caller flushes before any code relies on it (ARM-07).
template <TableGeometry G>
void WriteProtectStage2(const Stage2State<G>& state, MmuWriteLocked& lock,
                        GfnRange range, MmuCost* cost,
                        const HoldLimit& limit = {});

// The same for one word of cleared pages, while `slot` may log, and without
// yielding (DL-15). Writes to pages other than those of `cleared` that the
// processor has noted are marked first (stage2_dirty.h).
template <TableGeometry G>
void ReprotectStage2(const Stage2State<G>& state, const MmuWriteLocked& lock,
                     const Memslot& slot, GfnRange range,
                     const PageMask& cleared, AlsoProtected& also,
                     MmuCost* cost);

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_STAGE2_LOG_H_
