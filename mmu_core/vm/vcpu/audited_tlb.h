// A TLB of a vCPU, for the auditor, and the tables that it has to agree with.

#ifndef MMU_CORE_VM_VCPU_AUDITED_TLB_H_
#define MMU_CORE_VM_VCPU_AUDITED_TLB_H_

#include <cstdint>

#include "mmu_core/base/level.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/tlb/flush_queue.h"
#include "mmu_core/tlb/tlb_tag.h"
#include "mmu_core/tlb/vcpu_tlb.h"

namespace mmu {

// One context of the TLB, and the root to which its translations belong. A
// value. Valid while the vCPU stands still.
struct AuditedTlb {
  const VcpuTlb& tlb;
  MmuKind mmu;
  PendingFlushes pending;  // what they cover goes before the next access
  TlbTag tag;
  // The root from which the vCPU walks while it uses the context.
  uint64_t root_id;
  const PageTable& table;
  Level level;
  const SpteFormat& format;
  TlbPages pages;
  // The processor notes a write through an entry without D in its own log.
  bool cpu_logs = false;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_AUDITED_TLB_H_
