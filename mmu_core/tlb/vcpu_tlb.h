// The TLB of a vCPU that walks x86 tables.

#ifndef MMU_CORE_TLB_VCPU_TLB_H_
#define MMU_CORE_TLB_VCPU_TLB_H_

#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/tlb/basic_vcpu_tlb.h"  // IWYU pragma: export
#include "mmu_core/tlb/paging_structure_cache.h"

namespace mmu {

extern template class BasicPagingStructureCache<X86Paging>;
extern template class BasicVcpuTlb<X86Paging>;

using VcpuTlb = BasicVcpuTlb<X86Paging>;

}  // namespace mmu

#endif  // MMU_CORE_TLB_VCPU_TLB_H_
