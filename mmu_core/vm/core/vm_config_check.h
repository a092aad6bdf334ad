// The rules of a VmConfig, independent of memslots.

#ifndef MMU_CORE_VM_CORE_VM_CONFIG_CHECK_H_
#define MMU_CORE_VM_CORE_VM_CONFIG_CHECK_H_

#include "absl/status/status.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu {

// Whether a VM can be made with `config`. INVALID_ARGUMENT INVALID_VCPU_COUNT,
// INVALID_MMU_OPTION, and the errors of CheckMmuMode and DirtyRing::CheckBytes;
// the field is that of VmConfig. Memslots are checked when they are made.
absl::Status CheckConfig(const VmConfig& config);

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_VM_CONFIG_CHECK_H_
