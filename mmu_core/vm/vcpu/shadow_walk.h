// What the processor does on a TLB miss when it runs on shadow pages. As
// vm/vcpu/hardware_walk.h, but what is accessed is a guest's virtual address or
// an address of L2, and each entry on the way has a say in what may be done.

#ifndef MMU_CORE_VM_VCPU_SHADOW_WALK_H_
#define MMU_CORE_VM_VCPU_SHADOW_WALK_H_

#include <cstdint>

#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/permission_table.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/paging/mmio_spte.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/shadow/shadow_roots.h"
#include "mmu_core/vm/vcpu/hardware_walk.h"

namespace mmu {

// What a shadow walk works with; constant while the vCPU's role is.
struct ShadowWalkParts {
  const SpteFormat& format;
  const MmioFormat& mmio;
  const HostMemory& memory;
  // The processor's own rules: CR0.WP is set whatever the guest says.
  const PermissionTable& permissions;
};

// What a walk found. A value.
struct ShadowWalkResult {
  WalkResult result;
  Spte mmio;  // of kReserved
};

// Walks `roots` for `address`, sets A and D as HardwareWalk does.
// result.entry.base_gfn is the virtual page number. REQUIRES: an open access
// section of the vCPU; roots.table() is not null.
ShadowWalkResult ShadowWalk(const ShadowWalkParts& parts,
                            const ShadowRoots& roots, uint64_t address,
                            const GuestPageAccess& access);

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_SHADOW_WALK_H_
