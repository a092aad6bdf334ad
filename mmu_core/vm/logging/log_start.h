// Starting the dirty log of a VM (section 8 of the behaviour reference).
//
// Order (DL-02): the slots' flags are set, huge pages are split, pages are
// write-protected, TLBs are flushed; then the log is open.

#ifndef MMU_CORE_VM_LOGGING_LOG_START_H_
#define MMU_CORE_VM_LOGGING_LOG_START_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Vm::StartDirtyLog and Vm::CheckDirtyLogStart.
absl::StatusOr<StartResult> StartDirtyLog(VmCore& vm,
                                          const DirtyLogStart& start,
                                          MmuCost* cost);
absl::StatusOr<absl::optional<DirtyLogView>> CheckDirtyLogStart(
    const VmCore& vm, const DirtyLogStart& start);

}  // namespace mmu

#endif  // MMU_CORE_VM_LOGGING_LOG_START_H_
