// Converts between mmud.v1's messages that switch a dirty log on and off and
// the values of server/control/dirty_log_control.h.

#ifndef SERVER_CONVERT_DIRTY_LOG_CONTROL_CONVERT_H_
#define SERVER_CONVERT_DIRTY_LOG_CONTROL_CONVERT_H_

#include "absl/status/statusor.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/control/dirty_log_control.h"
#include "server/control/shown_vm.h"

namespace mmud {

// Everything but `vm` and `request_id`. INVALID_OWNER, INVALID_OWNER_TOKEN,
// INVALID_LEASE, INVALID_TTL, INVALID_DIRTY_LOG_MODE, INVALID_ENUM_VALUE,
// INVALID_THROTTLE, INVALID_SLOT.
absl::StatusOr<DirtyLogStartRequest> ToStartRequest(
    const v1::StartDirtyLogRequest& request, const VmFacts& vm);

// `vm` is the VM whose log was started.
v1::StartDirtyLogResponse ToResponse(const VmFacts& vm,
                                     const StartedDirtyLog& started);

// The fields that come from the job's progress, so not `vm`, `vm_uid`, `owner`
// and the times.
v1::StartDirtyLogMetadata ToMetadata(
    const DirtyLogStartJob::Progress& progress);

// Converts everything but `vm` and `request_id`. INVALID_OWNER_TOKEN,
// INVALID_LOG_ID.
absl::StatusOr<mmu::DirtyLogStop> ToStop(
    const v1::StopDirtyLogRequest& request);

v1::StopDirtyLogResponse ToResponse(const StoppedDirtyLog& stopped);

}  // namespace mmud

#endif  // SERVER_CONVERT_DIRTY_LOG_CONTROL_CONVERT_H_
