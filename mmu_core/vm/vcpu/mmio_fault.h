// Faults on gfns without memory, in whichever tables the vCPU runs on.

#ifndef MMU_CORE_VM_VCPU_MMIO_FAULT_H_
#define MMU_CORE_VM_VCPU_MMIO_FAULT_H_

#include "mmu_core/base/address.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Returns whether an MMIO SPTE may mark that `gfn` has no memory. Without one,
// each access is emulated after a memslot lookup (SPTE-45).
inline bool MayMakeMmioSpte(const VmCore& vm, Gfn gfn) {
  return vm.config.mmio_caching != VmConfig::MmioCaching::kNo &&
         vm.mmio.enabled() && gfn <= vm.mmio.max_gfn() &&
         gfn.value() <= vm.slots.max_gfn();
}

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_MMIO_FAULT_H_
