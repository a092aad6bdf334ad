// Converts between mmud.v1's messages that switch a dirty log on and off and
// the values of server/control/dirty_log_control.h.

#ifndef SERVER_CONVERT_DIRTY_LOG_CONTROL_CONVERT_H_
#define SERVER_CONVERT_DIRTY_LOG_CONTROL_CONVERT_H_

#include "absl/status/statusor.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/control/dirty_log_control.h"
#include "server/control/managed_vm.h"

namespace mmud {

// Everything but `vm` and `request_id`. INVALID_OWNER, INVALID_OWNER_TOKEN,
// INVALID_LEASE, INVALID_TTL, INVALID_DIRTY_LOG_MODE, INVALID_ENUM_VALUE,
// INVALID_THROTTLE, INVALID_SLOT, MEMSLOT_NOT_FOUND.
absl::StatusOr<DirtyLogStartRequest> ToStartRequest(
    const v1::StartDirtyLogRequest& request, const ManagedVm& vm);

// `vm` is the VM whose log was started.
v1::StartDirtyLogResponse ToResponse(const ManagedVm& vm,
                                     const StartedDirtyLog& started);

// Fills in everything but the times.
v1::StartDirtyLogMetadata ToMetadata(const DirtyLogStartJob& job);

// Converts everything but `vm` and `request_id`. INVALID_OWNER_TOKEN,
// INVALID_LOG_ID.
absl::StatusOr<mmu::DirtyLogStop> ToStop(
    const v1::StopDirtyLogRequest& request);

v1::StopDirtyLogResponse ToResponse(const StoppedDirtyLog& stopped);

}  // namespace mmud

#endif  // SERVER_CONVERT_DIRTY_LOG_CONTROL_CONVERT_H_
