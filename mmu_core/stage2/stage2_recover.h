// Making way for blocks where small pages are mapped.

#ifndef MMU_CORE_STAGE2_STAGE2_RECOVER_H_
#define MMU_CORE_STAGE2_STAGE2_RECOVER_H_

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/huge_page_outcomes.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Unlinks the tables within `range` in whose place a block may be mapped. The
// next access to such a block maps it. (KVM has no such pass: small pages stay
// until a fault replaces them, ARM-37.) Invalidates at the end or before a
// yield. REQUIRES: `slot` does not log dirty pages.
template <TableGeometry G>
RecoverOutcome MakeWayForBlocks(const Stage2State<G>& state,
                                MmuWriteLocked& lock, const Memslot& slot,
                                GfnRange range, MmuCost* cost,
                                const HoldLimit& limit);

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_STAGE2_RECOVER_H_
