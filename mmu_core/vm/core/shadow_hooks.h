// The shadow MMU's access to its VM: finds memslots, and write-protects a gfn
// in the other MMUs.

#ifndef MMU_CORE_VM_CORE_SHADOW_HOOKS_H_
#define MMU_CORE_VM_CORE_SHADOW_HOOKS_H_

#include "mmu_core/base/address.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_table.h"
#include "mmu_core/shadow/shadow_vm.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/vm/core/mmu_set.h"

namespace mmu {

// Thread-safe. Used only once `slots` and `mmus` are constructed.
class ShadowHooks final : public ShadowVm {
 public:
  ShadowHooks(const MemslotTable& slots, MmuSet& mmus)
      : slots_(slots), mmus_(mmus) {}

  const Memslot* SlotOf(int as_id, Gfn gfn) override;
  bool WriteProtectGfn(const MmuWriteLocked& lock, const Memslot& slot,
                       Gfn gfn) override;

 private:
  const MemslotTable& slots_;
  MmuSet& mmus_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_SHADOW_HOOKS_H_
