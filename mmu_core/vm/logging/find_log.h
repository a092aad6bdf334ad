// Finding the dirty log of a VM, and the errors if the caller may not use it.

#ifndef MMU_CORE_VM_LOGGING_FIND_LOG_H_
#define MMU_CORE_VM_LOGGING_FIND_LOG_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/dirty/current_dirty_log.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// The log if it is on. FAILED_PRECONDITION DIRTY_LOG_OFF.
absl::StatusOr<std::shared_ptr<VmDirtyLog>> LogOf(const VmCore& vm);

// Like DirtyLog::Admit; also RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED_MEMORY if
// there is no memory for the text of its error.
absl::Status Admit(VmDirtyLog& log, const LogCall& call);

// NOT_FOUND MEMSLOT_NOT_FOUND.
absl::Status NoSuchSlot(uint32_t slot);

// Returns `status`, the result of a query of the log of `slot`. If the query
// was refused and the VM has no such slot, returns NOT_FOUND MEMSLOT_NOT_FOUND
// instead. (Every logged slot exists.)
absl::Status OrNoSuchSlot(const VmCore& vm, uint32_t slot, absl::Status status);

}  // namespace mmu

#endif  // MMU_CORE_VM_LOGGING_FIND_LOG_H_
