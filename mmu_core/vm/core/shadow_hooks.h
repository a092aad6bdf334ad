// The services that the two MMUs of a VM need from each other and from its
// memslots.

#ifndef MMU_CORE_VM_CORE_SHADOW_HOOKS_H_
#define MMU_CORE_VM_CORE_SHADOW_HOOKS_H_

#include "mmu_core/base/address.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/write_gate.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/shadow/shadow_vm.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

struct VmCore;

// Uses `vm`, so it may be called only once `vm` is constructed. Thread-safe.
class ShadowHooks final : public ShadowVm, public WriteGate {
 public:
  explicit ShadowHooks(VmCore& vm) : vm_(vm) {}

  // For the shadow MMU.
  const Memslot* SlotOf(int as_id, Gfn gfn) override;
  bool WriteProtectGfn(const MmuWriteLocked& lock, const Memslot& slot,
                       Gfn gfn) override;

  // For the TDP MMU: the answer of the shadow pages. True as long as the VM has
  // no shadow root.
  bool MayMapWritable(const MmuReadLocked& lock, const Memslot& slot, Gfn gfn,
                      Prefetched prefetched) override;
  bool MayMapWritable(const MmuWriteLocked& lock, const Memslot& slot, Gfn gfn,
                      Prefetched prefetched) override;

 private:
  VmCore& vm_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_SHADOW_HOOKS_H_
