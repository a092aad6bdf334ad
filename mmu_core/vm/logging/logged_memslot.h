// Changing a memslot of a VM that may log. slots/set_memslot.h makes the
// change; this file handles the slot's pages in the log and its entries in
// dirty rings.

#ifndef MMU_CORE_VM_LOGGING_LOGGED_MEMSLOT_H_
#define MMU_CORE_VM_LOGGING_LOGGED_MEMSLOT_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Vm::SetMemslot.
absl::Status SetMemslot(VmCore& vm, const MemslotConfig& config);

// Vm::DeleteMemslot.
absl::StatusOr<UndeliveredCounts> DeleteMemslot(VmCore& vm, uint32_t slot,
                                                Undelivered undelivered);

}  // namespace mmu

#endif  // MMU_CORE_VM_LOGGING_LOGGED_MEMSLOT_H_
