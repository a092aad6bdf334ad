// Converts between mmud.v1's messages about splits and recoveries and
// mmu_core's jobs.

#ifndef SERVER_CONVERT_SPLIT_CONVERT_H_
#define SERVER_CONVERT_SPLIT_CONVERT_H_

#include <array>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/jobs/recover_job.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "mmud/v1/split_service.pb.h"

namespace mmud {

// Converts everything but `vm`, `validate_only` and `request_id`. ToRangesOfVm
// explains `slots`.
absl::StatusOr<mmu::SplitRequest> ToSplitRequest(
    const v1::SplitHugePagesRequest& request,
    const std::vector<mmu::MemslotInfo>& slots);

v1::ThrottledTime ToProto(
    const std::array<absl::Duration, mmu::kThrottleLimits>& throttled);

// The fields of SplitMetadata that come from the job, so not `vm`, `start_time`
// and `target_page_size`.
v1::SplitMetadata ToMetadata(const mmu::SplitJob& job);
v1::SplitHugePagesResponse ToResponse(const mmu::SplitProgress& progress);

// The fields of RecoverMetadata that come from the job, so not `vm`, `vm_uid`
// and the times.
v1::RecoverMetadata ToMetadata(const mmu::RecoverJob& job);
v1::RecoverHugePagesResponse ToResponse(
    const mmu::RecoverJob::Progress& progress);

// The etag of a throttle, which changes when the throttle does.
std::string EtagOf(const mmu::Throttle& throttle);

}  // namespace mmud

#endif  // SERVER_CONVERT_SPLIT_CONVERT_H_
