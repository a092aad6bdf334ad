// How many shadow pages a VM may have.

#ifndef MMU_CORE_VM_CORE_SHADOW_PAGE_LIMIT_H_
#define MMU_CORE_VM_CORE_SHADOW_PAGE_LIMIT_H_

#include <cstdint>

#include "absl/status/status.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Vm::shadow_page_limit, Vm::SetShadowPageLimit.
uint64_t ShadowPageLimit(const VmCore& vm);
absl::Status SetShadowPageLimit(VmCore& vm, uint64_t pages, MmuCost* cost);

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_SHADOW_PAGE_LIMIT_H_
