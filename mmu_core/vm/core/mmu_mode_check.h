// The valid combinations of MMUs, processors and guests' tables.

#ifndef MMU_CORE_VM_CORE_MMU_MODE_CHECK_H_
#define MMU_CORE_VM_CORE_MMU_MODE_CHECK_H_

#include "absl/status/status.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu {

inline constexpr int kMaxGuestProcesses = 64;

// INVALID_ARGUMENT INVALID_MMU_OPTION unless `mmu`, `guest_paging` and
// `shadow_page_limit` fit each other and the rest of `config`. Options without
// a meaning in the mode are not checked, except the limit.
absl::Status CheckMmuMode(const VmConfig& config);

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_MMU_MODE_CHECK_H_
