// Stopping the dirty log of a VM, by its owner, by force, or because its owner
// has made no call for the log's ttl.

#ifndef MMU_CORE_VM_LOGGING_LOG_STOP_H_
#define MMU_CORE_VM_LOGGING_LOG_STOP_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Vm::StopDirtyLog.
absl::StatusOr<StopResult> StopDirtyLog(VmCore& vm, const DirtyLogStop& stop,
                                        MmuCost* cost);

// Vm::StopAbandonedDirtyLog: nullopt if the VM has no log, or its ttl has not
// expired. `view`: the log before the stop.
absl::optional<StopResult> StopAbandonedDirtyLog(VmCore& vm, MonotonicTime now,
                                                 DirtyLogView* view,
                                                 MmuCost* cost);

}  // namespace mmu

#endif  // MMU_CORE_VM_LOGGING_LOG_STOP_H_
