#include "mmu_core/stage2/s2_tlb.h"

#include "mmu_core/tlb/basic_vcpu_tlb_impl.h"

namespace mmu {

template class BasicPagingStructureCache<S2Paging<Arm4K>>;
template class BasicPagingStructureCache<S2Paging<Arm16K>>;
template class BasicPagingStructureCache<S2Paging<Arm64K>>;
template class BasicVcpuTlb<S2Paging<Arm4K>>;
template class BasicVcpuTlb<S2Paging<Arm16K>>;
template class BasicVcpuTlb<S2Paging<Arm64K>>;

}  // namespace mmu
