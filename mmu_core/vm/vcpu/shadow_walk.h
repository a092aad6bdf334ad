// Models the processor's page walk on a TLB miss over shadow tables. Unlike in
// vm/vcpu/hardware_walk.h, the address is a guest's virtual address or an
// address of L2, and every entry on the way can restrict the access.

#ifndef MMU_CORE_VM_VCPU_SHADOW_WALK_H_
#define MMU_CORE_VM_VCPU_SHADOW_WALK_H_

#include "mmu_core/base/address.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/permission_table.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/paging/mmio_spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/shadow/shadow_roots.h"
#include "mmu_core/tlb/paging_structure_cache.h"
#include "mmu_core/vm/vcpu/table_walk.h"

namespace mmu {

// The inputs of a shadow walk; constant as long as the vCPU's role is.
struct ShadowWalkParts {
  const SpteFormat& format;
  const MmioFormat& mmio;
  const HostMemory& memory;
  // The processor's own rules: CR0.WP counts as set, even if the guest clears
  // it.
  const PermissionTable& permissions;
};

// Calls WalkTables for `roots` and the page. REQUIRES: as WalkTables;
// roots.table() is not null.
WalkResult ShadowWalk(const ShadowWalkParts& parts, const ShadowRoots& roots,
                      PageNumber page, const GuestPageAccess& access,
                      PagingStructureCache* cache);

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_SHADOW_WALK_H_
