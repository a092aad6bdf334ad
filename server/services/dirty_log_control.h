// Switching a VM's dirty log on and off, and the log that nobody harvests.

#ifndef SERVER_SERVICES_DIRTY_LOG_CONTROL_H_
#define SERVER_SERVICES_DIRTY_LOG_CONTROL_H_

#include <cstdint>
#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/managed_vm.h"
#include "server/rpc/timer.h"

namespace mmud {

// What a paced split needs of who serves the call.
struct PacedCall {
  Timer& timer;
  // Asked now and then, by the timer's thread; its error ends the call.
  std::function<absl::Status()> keep_going;
  // Called if the call fails after pages were split: those stay so.
  std::function<void()> part_done;
};

// After an error the log is still off.
absl::StatusOr<v1::StartDirtyLogResponse> StartDirtyLog(
    const v1::StartDirtyLogRequest& request, ManagedVm& vm,
    const PacedCall& call);

absl::StatusOr<v1::StopDirtyLogResponse> StopDirtyLog(
    const v1::StopDirtyLogRequest& request, ManagedVm& vm);

// The settings of a log last as long as a slot logs: to be called when the log
// of a slot has ended. REQUIRES: vm.dirty_log_mu().
void ForgetSettingsIfOff(ManagedVm& vm)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.dirty_log_mu());

// Stops the log of `vm` if its time to live is over, and tells how many dirty
// pages were discarded; nothing if it is not over. RESOURCE_EXHAUSTED_MEMORY:
// the log goes on, and is over its time still: to be tried again.
absl::optional<absl::StatusOr<uint64_t>> StopIfExpired(ManagedVm& vm,
                                                       mmu::MonotonicTime now);

// FAILED_PRECONDITION DIRTY_LOG_OFF about a slot.
absl::Status DirtyLogOff(const ManagedVm& vm, uint32_t slot);

}  // namespace mmud

#endif  // SERVER_SERVICES_DIRTY_LOG_CONTROL_H_
