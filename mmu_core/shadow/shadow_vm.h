// What the shadow MMU's pages need of the VM around them.

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

  // The slot of address space `as_id` that holds `gfn`, one that is being
  // deleted too, or null (SHD-10). It has rmaps. REQUIRES: an RCU read section;
  // the slot stays as long as that.
  virtual const Memslot* SlotOf(int as_id, Gfn gfn) = 0;

  // Takes W, for good, from what maps `gfn` in the VM's other MMUs, as
  // TdpMmu::WriteProtectGfn does for its own. True if something changed: the
  // caller flushes.
  virtual bool WriteProtectGfn(const MmuWriteLocked& lock, const Memslot& slot,
                               Gfn gfn) = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_VM_H_
