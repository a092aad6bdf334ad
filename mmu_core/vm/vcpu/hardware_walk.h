// What the processor does on a TLB miss: walks the tables, sets Accessed and
// Dirty bits, and yields a translation or a fault. The MMU's own code never
// calls this; vCPUs do.

#ifndef MMU_CORE_VM_VCPU_HARDWARE_WALK_H_
#define MMU_CORE_VM_VCPU_HARDWARE_WALK_H_

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/dirty/pml_buffer.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/paging/mmio_spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/tdp/tdp_root.h"
#include "mmu_core/tlb/vcpu_tlb.h"

namespace mmu {

// A value.
struct WalkResult {
  enum class Kind : uint8_t {
    kTranslated,  // `entry` is set
    kNotPresent,  // violation: no entry
    kNotAllowed,  // violation: an entry without this permission
    kReserved,    // an MMIO SPTE: EPT misconfiguration, NPT reserved bit
    kLogFull,     // D must be set, and the CPU's dirty log has no room
  } kind = Kind::kNotPresent;
  TlbEntry entry;
};

// Sets A, and D for a write, by compare-exchange on the leaf it uses, so that a
// change made meanwhile is never overwritten: the walk then starts over, as
// hardware does. Whoever sets D notes the page in `pml`, the CPU's dirty log,
// if that is on (not null); without room there, it changes nothing (DL-30).
// REQUIRES: an open access section of the vCPU.
WalkResult HardwareWalk(const SpteFormat& format, const MmioFormat& mmio,
                        const HostMemory& memory, const TdpRoot& root, Gfn gfn,
                        AccessKind kind, PmlBuffer* pml);

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_HARDWARE_WALK_H_
