// Clearing pages of a sealed epoch.
//
// Order (DL-10, DL-12): the pages are put in flight and write-protected, TLBs
// are flushed, the call returns; then the owner copies the pages.

#ifndef MMU_CORE_VM_LOGGING_LOG_CLEAR_H_
#define MMU_CORE_VM_LOGGING_LOG_CLEAR_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Vm::ClearDirtyLog.
absl::StatusOr<ClearResult> ClearDirtyLog(VmCore& vm, const LogCall& call,
                                          uint32_t slot, uint64_t epoch,
                                          uint64_t first_page,
                                          uint64_t page_count,
                                          absl::Span<const uint64_t> mask,
                                          MmuCost* cost);

}  // namespace mmu

#endif  // MMU_CORE_VM_LOGGING_LOG_CLEAR_H_
