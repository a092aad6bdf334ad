#include "server/convert/workload_convert.h"

#include <cstdint>

#include "mmu_core/base/access.h"
#include "mmu_core/base/check.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "server/base/status_mapping.h"
#include "server/control/workload_run.h"
#include "server/convert/convert.h"

namespace mmud {
namespace {

// Counts without the faults that were handled without mmu_lock.
int64_t Faults(const mmu::VcpuStatsSnapshot& stats, mmu::FaultResult result) {
  int64_t sum = 0;
  for (const uint64_t count : stats.slow_faults[static_cast<int>(result)]) {
    sum += static_cast<int64_t>(count);
  }
  return sum;
}

lab::v1::WorkloadState ToProto(WorkloadRun::State state) {
  switch (state) {
    case WorkloadRun::State::kRunning:
      return lab::v1::WORKLOAD_STATE_RUNNING;
    case WorkloadRun::State::kCompleted:
      return lab::v1::WORKLOAD_STATE_COMPLETED;
    case WorkloadRun::State::kStopped:
      return lab::v1::WORKLOAD_STATE_STOPPED;
    case WorkloadRun::State::kFailed:
      return lab::v1::WORKLOAD_STATE_FAILED;
  }
  return lab::v1::WORKLOAD_STATE_UNSPECIFIED;
}

}  // namespace

WorkloadDescription ToDescription(const lab::v1::Workload& workload) {
  return {.name = workload.name(), .asked = workload.SerializeAsString()};
}

lab::v1::Workload ToProto(const WorkloadRun& run) {
  const WorkloadRun::Progress progress = run.progress();
  lab::v1::Workload proto;
  // ToDescription made this text.
  MMU_CHECK(proto.ParseFromString(run.description().asked));
  proto.set_state(ToProto(progress.state));
  if (!progress.error.ok()) {
    *proto.mutable_error() = ToRpcStatus(progress.error);
  }
  *proto.mutable_start_time() = ToProto(run.start_time());
  if (progress.end_time.has_value()) {
    *proto.mutable_end_time() = ToProto(*progress.end_time);
  }
  *proto.mutable_running_time() = ToProto(progress.running_time);
  *proto.mutable_statistics() = ToProto(progress.stats);
  return proto;
}

lab::v1::WorkloadStatistics ToProto(const mmu::VcpuStatsSnapshot& stats) {
  lab::v1::WorkloadStatistics proto;
  proto.set_access_count(static_cast<int64_t>(stats.accesses));
  proto.set_write_count(static_cast<int64_t>(stats.writes));
  lab::v1::FaultCounts* faults = proto.mutable_faults();
  faults->set_fixed_count(Faults(stats, mmu::FaultResult::kFixed));
  faults->set_fast_count(static_cast<int64_t>(stats.pf_fast));
  faults->set_spurious_count(Faults(stats, mmu::FaultResult::kSpurious));
  faults->set_emulate_count(Faults(stats, mmu::FaultResult::kEmulate));
  faults->set_retry_count(Faults(stats, mmu::FaultResult::kRetry));
  faults->set_error_count(static_cast<int64_t>(stats.fault_errors));
  mmu::LatencySnapshot stalls = stats.fault_fast;
  stalls.Add(stats.fault_slow);
  *proto.mutable_stalls() = ToProto(stalls);
  return proto;
}

}  // namespace mmud
