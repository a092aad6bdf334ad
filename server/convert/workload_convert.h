// Converts a WorkloadRun to mmud.lab.v1.Workload.

#ifndef SERVER_CONVERT_WORKLOAD_CONVERT_H_
#define SERVER_CONVERT_WORKLOAD_CONVERT_H_

#include "mmu_core/stats/vcpu_stats.h"
#include "mmud/lab/v1/workload_service.pb.h"
#include "server/control/workload_run.h"

namespace mmud {

// The description that a run keeps: all of `workload`, which has its name,
// vm_uid, the request's fields and total_access_count.
WorkloadDescription ToDescription(const lab::v1::Workload& workload);

lab::v1::Workload ToProto(const WorkloadRun& run);
lab::v1::WorkloadStatistics ToProto(const mmu::VcpuStatsSnapshot& stats);

}  // namespace mmud

#endif  // SERVER_CONVERT_WORKLOAD_CONVERT_H_
