// The TLBs of vCPUs that run on stage-2 tables, one kind per granule.

#ifndef MMU_CORE_STAGE2_S2_TLB_H_
#define MMU_CORE_STAGE2_S2_TLB_H_

#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/tlb/basic_paging_structure_cache.h"
#include "mmu_core/tlb/basic_vcpu_tlb.h"
#include "mmu_core/tlb/stage2_tlb.h"

namespace mmu {

extern template class BasicPagingStructureCache<S2Paging<Arm4K>>;
extern template class BasicPagingStructureCache<S2Paging<Arm16K>>;
extern template class BasicPagingStructureCache<S2Paging<Arm64K>>;
extern template class BasicVcpuTlb<S2Paging<Arm4K>>;
extern template class BasicVcpuTlb<S2Paging<Arm16K>>;
extern template class BasicVcpuTlb<S2Paging<Arm64K>>;

template <TableGeometry G>
using S2Tlb = Stage2Tlb<S2Paging<G>>;

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_S2_TLB_H_
