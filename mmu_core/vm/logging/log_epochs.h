// Calls of a dirty log's owner and of its readers, other than starting,
// clearing and stopping: owner, epochs, reading, acknowledging. The sets of
// pages: dirty/dirty_log.h.

#ifndef MMU_CORE_VM_LOGGING_LOG_EPOCHS_H_
#define MMU_CORE_VM_LOGGING_LOG_EPOCHS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/dirty/slot_log.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// The Vm functions of the same names.

absl::StatusOr<DirtyLogView> AcquireDirtyLog(VmCore& vm, const LogClaim& claim,
                                             absl::optional<LogId> log_id,
                                             LogOwner::Force force,
                                             MonotonicTime now,
                                             LogOwner::Acquired* acquired);
absl::StatusOr<SealOutcome> SealDirtyLog(VmCore& vm, const LogCall& call,
                                         uint64_t acknowledged_epoch,
                                         MmuCost* cost);
absl::Status ReadDirtyLog(VmCore& vm, absl::optional<LogId> log_id,
                          uint32_t slot, uint64_t epoch, uint64_t first_page,
                          absl::Span<uint64_t> words);
absl::Status ReadInFlight(const VmCore& vm, absl::optional<LogId> log_id,
                          uint32_t slot, uint64_t epoch, uint64_t first_page,
                          absl::Span<uint64_t> words);
absl::Status CheckDirtyLogEpoch(const VmCore& vm, absl::optional<LogId> log_id,
                                uint64_t epoch, LogPages pages);
absl::StatusOr<AcknowledgeResult> AcknowledgePages(VmCore& vm,
                                                   const LogCall& call,
                                                   uint64_t epoch);
absl::StatusOr<AcknowledgeResult> AcknowledgePages(
    VmCore& vm, const LogCall& call, uint64_t epoch, uint32_t slot,
    uint64_t first_page, uint64_t page_count, absl::Span<const uint64_t> mask);

}  // namespace mmu

#endif  // MMU_CORE_VM_LOGGING_LOG_EPOCHS_H_
