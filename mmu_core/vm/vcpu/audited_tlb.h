// A TLB of a vCPU, for the auditor, and the tables that it has to agree with.

#ifndef MMU_CORE_VM_VCPU_AUDITED_TLB_H_
#define MMU_CORE_VM_VCPU_AUDITED_TLB_H_

#include <cstdint>

#include "mmu_core/base/level.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/tlb/vcpu_tlb.h"

namespace mmu {

// A value. Valid while the vCPU stands still.
struct AuditedTlb {
  enum class Pages : uint8_t {
    kGuestPhysical,  // and so pages of memslots, which may log
    kOther,          // virtual pages, or those of L2
  };

  const VcpuTlb& tlb;
  // Where the vCPU's walks begin.
  uint64_t root_id;
  const PageTable& table;
  Level level;
  const SpteFormat& format;
  Pages pages;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_AUDITED_TLB_H_
