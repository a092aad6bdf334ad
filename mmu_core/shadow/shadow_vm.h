// The services of the VM that the shadow MMU's pages need.

#ifndef MMU_CORE_SHADOW_SHADOW_VM_H_
#define MMU_CORE_SHADOW_SHADOW_VM_H_

#include "mmu_core/base/address.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Called under mmu_lock: takes no lock above it, allocates nothing.
class ShadowVm {
 public:
  virtual ~ShadowVm() = default;

  // The slot of address space `as_id` that holds `gfn`, even if it is being
  // deleted, or null (SHD-10). The slot has rmaps. REQUIRES: an RCU read
  // section, which keeps the slot.
  virtual const Memslot* SlotOf(int as_id, Gfn gfn) = 0;

  // Clears W and MMU-writable in the SPTEs of the VM's other MMUs that map
  // `gfn`, as TdpMmu::WriteProtectGfn does in its own. True if something
  // changed: the caller flushes.
  virtual bool WriteProtectGfn(const MmuWriteLocked& lock, const Memslot& slot,
                               Gfn gfn) = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_VM_H_
