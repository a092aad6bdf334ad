// Listing stage-2 tables while vCPUs run.

#ifndef MMU_CORE_STAGE2_STAGE2_LIST_H_
#define MMU_CORE_STAGE2_STAGE2_LIST_H_

#include "mmu_core/base/table_geometry.h"
#include "mmu_core/mmu/shadow_page_lister.h"
#include "mmu_core/stage2/stage2_state.h"

namespace mmu {

// Lists the tables of the root and those below in the order of the gfns that
// they map, a table before the tables below it. True at the end. See Mmu::List.
template <TableGeometry G>
bool ListStage2Pages(const Stage2State<G>& state, ShadowPageLister& listing);

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_STAGE2_LIST_H_
