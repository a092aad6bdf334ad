// Models the processor's page walk on a TLB miss over the TDP MMU's tables: it
// walks them, sets Accessed and Dirty bits, and yields a translation or a
// fault. Only vCPUs call this, never the MMU's own code.

#ifndef MMU_CORE_VM_VCPU_HARDWARE_WALK_H_
#define MMU_CORE_VM_VCPU_HARDWARE_WALK_H_

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/dirty/pml_buffer.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/paging/mmio_spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/tdp/tdp_root.h"
#include "mmu_core/tlb/paging_structure_cache.h"
#include "mmu_core/vm/vcpu/table_walk.h"

namespace mmu {

// Calls WalkTables for `gfn`. A walk that sets D logs the page in `pml`, the
// CPU's dirty log, unless `pml` is null (logging off). If `pml` has no room,
// the walk changes nothing (DL-30). REQUIRES: as WalkTables.
WalkResult HardwareWalk(const SpteFormat& format, const MmioFormat& mmio,
                        const HostMemory& memory, const TdpRoot& root, Gfn gfn,
                        AccessKind kind, PmlBuffer* pml,
                        PagingStructureCache* cache = nullptr);

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_HARDWARE_WALK_H_
