#include "mmu_core/tlb/vcpu_tlb.h"

#include "mmu_core/tlb/basic_vcpu_tlb_impl.h"

namespace mmu {

template class BasicPagingStructureCache<X86Paging>;
template class BasicVcpuTlb<X86Paging>;

}  // namespace mmu
