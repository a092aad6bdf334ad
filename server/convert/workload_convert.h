// Converts between mmud.lab.v1.Workload and the values of
// server/control/workload_run.h and workload_source.h.

#ifndef SERVER_CONVERT_WORKLOAD_CONVERT_H_
#define SERVER_CONVERT_WORKLOAD_CONVERT_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmud/lab/v1/workload_service.pb.h"
#include "server/control/workload_run.h"
#include "server/control/workload_source.h"

namespace mmud {

// The program of a request's field `workload`. INVALID_PATTERN,
// INVALID_ENUM_VALUE, UNALIGNED, INVALID_RANGE, INVALID_SIZE.
absl::StatusOr<WorkloadProgram> ToProgram(const lab::v1::Workload& workload);
// An error of MakeSources, about the field of `workload` that is to blame.
absl::Status InProgramFields(absl::Status status,
                             const lab::v1::Workload& workload);

// The description that a run keeps: all of `workload`, which has its name,
// vm_uid, the request's fields and total_access_count.
WorkloadDescription ToDescription(const lab::v1::Workload& workload);

lab::v1::Workload ToProto(const WorkloadRun& run);
lab::v1::WorkloadStatistics ToProto(const mmu::VcpuStatsSnapshot& stats);

}  // namespace mmud

#endif  // SERVER_CONVERT_WORKLOAD_CONVERT_H_
