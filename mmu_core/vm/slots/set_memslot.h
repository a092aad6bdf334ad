// Creating, moving, re-flagging and deleting a memslot.

#ifndef MMU_CORE_VM_SLOTS_SET_MEMSLOT_H_
#define MMU_CORE_VM_SLOTS_SET_MEMSLOT_H_

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Vm::SetMemslot without the dirty rings, whose stale entries the caller frees.
// `lost`: the counts of the dirty log's pages of a deleted slot. After an error
// nothing has changed.
absl::Status SetMemslotLocked(VmCore& vm, const MemslotConfig& config,
                              UndeliveredCounts* lost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock);

}  // namespace mmu

#endif  // MMU_CORE_VM_SLOTS_SET_MEMSLOT_H_
