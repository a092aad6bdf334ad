// The guest that a VM's configuration describes: options of its kernel, or of
// its hypervisor.

#ifndef MMU_CORE_VM_RUN_GUEST_OPTIONS_H_
#define MMU_CORE_VM_RUN_GUEST_OPTIONS_H_

#include <cstdint>

#include "mmu_core/guest/hypervisor/l2_program.h"
#include "mmu_core/guest/kernel/kernel_program.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu {

KernelProgramOptions KernelOptions(const VmConfig& config, uint64_t seed);
L2ProgramOptions HypervisorOptions(const VmConfig& config, uint64_t seed);

}  // namespace mmu

#endif  // MMU_CORE_VM_RUN_GUEST_OPTIONS_H_
