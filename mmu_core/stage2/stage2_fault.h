// Mapping a page on a stage-2 fault (ARM-35..38).

#ifndef MMU_CORE_STAGE2_STAGE2_FAULT_H_
#define MMU_CORE_STAGE2_STAGE2_FAULT_H_

#include "mmu_core/base/access.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/mmu/page_fault.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// The tables that a fault may need: one per level below the root's.
template <TableGeometry G>
inline constexpr int kS2TablesPerFault = ToInt(G::kMaxStartLevel) - 1;

// Maps the granule of fault.gfn, or a block that contains it, and marks its
// pages dirty if they become writable in a slot that logs. kRetry: another
// walker changes the path. kSpurious: the mapping allows the access already. If
// a page below a table does, the block does not take the table's place: a fault
// that the break of a split caused would undo the split.
//
// A slot that logs is mapped by pages only, and a page becomes writable only by
// a write (ARM-36). If a block is in the way, the fault splits it. At FEAT_BBM
// level 0 the block is broken, and only the granule is mapped again (ARM-35);
// at level 2 all pages stay mapped.
//
// REQUIRES: `fault` is resolved, the invalidation check passed under this
// `lock` (PF-25), `cache` holds kS2TablesPerFault tables.
template <TableGeometry G>
FaultResult MapStage2(Stage2State<G>& state, const MmuReadLocked& lock,
                      PageFault& fault, S2Cache<G>& cache);

// Sets AF in the leaf, page or block, that maps `gfn` (ARM-07). kRetry: nothing
// maps it any more, or another walker changes it. kSpurious: AF is set already.
template <TableGeometry G>
FaultResult SetAccessFlagStage2(const Stage2State<G>& state,
                                const MmuReadLocked& lock, Gfn gfn);

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_STAGE2_FAULT_H_
