#include "server/convert/workload_convert.h"

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest/first_touch_map.h"
#include "mmu_core/guest/pattern_spec.h"
#include "mmu_core/guest/trace_replay.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "server/base/errors.h"
#include "server/base/status_mapping.h"
#include "server/control/workload_run.h"
#include "server/control/workload_source.h"
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

absl::Status BadPattern(absl::string_view field, absl::string_view message) {
  return InvalidField(mmu::Reason::kInvalidPattern, field, message);
}

absl::StatusOr<mmu::PatternSpec> ToSpec(const lab::v1::AccessPattern& pattern) {
  mmu::PatternSpec spec;
  spec.write_fraction = pattern.write_fraction();
  spec.exec_fraction = pattern.exec_fraction();
  switch (pattern.kind_case()) {
    case lab::v1::AccessPattern::kSequential:
      spec.kind = mmu::PatternSpec::Kind::kSequential;
      if (pattern.sequential().stride_bytes() < 0) {
        return WrongValue(mmu::Reason::kInvalidPattern,
                          "workload.pattern.sequential.stride_bytes",
                          pattern.sequential().stride_bytes(), "0 or more");
      }
      if (pattern.sequential().stride_bytes() != 0) {
        spec.stride_bytes =
            static_cast<uint64_t>(pattern.sequential().stride_bytes());
      }
      return spec;
    case lab::v1::AccessPattern::kUniform:
      spec.kind = mmu::PatternSpec::Kind::kUniform;
      return spec;
    case lab::v1::AccessPattern::kZipf:
      spec.kind = mmu::PatternSpec::Kind::kZipf;
      if (pattern.zipf().exponent() != 0) {
        spec.zipf_exponent = pattern.zipf().exponent();
      }
      return spec;
    case lab::v1::AccessPattern::kHotCold: {
      const lab::v1::HotColdPattern& hot = pattern.hot_cold();
      spec.kind = mmu::PatternSpec::Kind::kHotCold;
      if (hot.hot_fraction() != 0) spec.hot_fraction = hot.hot_fraction();
      if (hot.hot_access_fraction() != 0) {
        spec.hot_access_fraction = hot.hot_access_fraction();
      }
      if (hot.drift_pages_per_million_accesses() < 0) {
        return WrongValue(
            mmu::Reason::kInvalidPattern,
            "workload.pattern.hot_cold.drift_pages_per_million_accesses",
            hot.drift_pages_per_million_accesses(), "0 or more");
      }
      spec.drift_pages_per_million_accesses =
          static_cast<uint64_t>(hot.drift_pages_per_million_accesses());
      return spec;
    }
    case lab::v1::AccessPattern::KIND_NOT_SET:
      break;
  }
  return BadPattern("workload.pattern",
                    "workload.pattern names no kind; set one of "
                    "sequential, uniform, zipf or hot_cold");
}

// Reads the fields that a replay has besides its extent.
absl::StatusOr<TraceProgram> ToTrace(const lab::v1::Workload& workload) {
  const lab::v1::TraceReplay& trace = workload.trace();
  if (trace.repeat_count() < 0) {
    return WrongValue(mmu::Reason::kInvalidPattern,
                      "workload.trace.repeat_count", trace.repeat_count(),
                      "0 or more");
  }
  TraceProgram program;
  program.trace_name = trace.trace_name();
  mmu::TraceReplayOptions& options = program.options;
  options.repeat_count = trace.repeat_count() == 0
                             ? 1
                             : static_cast<uint64_t>(trace.repeat_count());
  options.access_count = static_cast<uint64_t>(workload.access_count());
  options.seed = static_cast<uint64_t>(workload.seed());
  switch (trace.placement()) {
    case lab::v1::PAGE_PLACEMENT_UNSPECIFIED:
    case lab::v1::PAGE_PLACEMENT_CONTIGUOUS:
      return program;
    case lab::v1::PAGE_PLACEMENT_SCATTERED:
      options.placement = mmu::PagePlacement::kScattered;
      return program;
    default:
      return WrongValue(
          mmu::Reason::kInvalidEnumValue, "workload.trace.placement",
          static_cast<int>(trace.placement()), "CONTIGUOUS or SCATTERED");
  }
}

// Reads the extent of a pattern or a replay, if it has one.
template <typename Program>
absl::Status ReadExtent(const Program& proto, absl::string_view field,
                        WorkloadProgram* program) {
  if (!proto.has_extent()) return absl::OkStatus();
  const absl::StatusOr<mmu::GfnRange> range = ToRange(proto.extent(), field);
  if (!range.ok()) return range.status();
  program->extent = *range;
  return absl::OkStatus();
}

absl::StatusOr<WorkloadProgram> ToPattern(const lab::v1::Workload& workload) {
  absl::StatusOr<mmu::PatternSpec> spec = ToSpec(workload.pattern());
  if (!spec.ok()) return spec.status();
  spec->seed = static_cast<uint64_t>(workload.seed());
  spec->access_count = static_cast<uint64_t>(workload.access_count());
  WorkloadProgram program;
  program.program = *spec;
  if (absl::Status status =
          ReadExtent(workload.pattern(), "workload.pattern.extent", &program);
      !status.ok()) {
    return status;
  }
  return program;
}

absl::StatusOr<WorkloadProgram> ToReplay(const lab::v1::Workload& workload) {
  absl::StatusOr<TraceProgram> trace = ToTrace(workload);
  if (!trace.ok()) return trace.status();
  WorkloadProgram program;
  program.program = *std::move(trace);
  if (absl::Status status =
          ReadExtent(workload.trace(), "workload.trace.extent", &program);
      !status.ok()) {
    return status;
  }
  return program;
}

}  // namespace

absl::StatusOr<WorkloadProgram> ToProgram(const lab::v1::Workload& workload) {
  if (workload.access_count() < 0) {
    return WrongValue(mmu::Reason::kInvalidPattern, "workload.access_count",
                      workload.access_count(), "0 or more");
  }
  switch (workload.program_case()) {
    case lab::v1::Workload::kPattern:
      return ToPattern(workload);
    case lab::v1::Workload::kTrace:
      return ToReplay(workload);
    case lab::v1::Workload::PROGRAM_NOT_SET:
      break;
  }
  return BadPattern("workload.pattern",
                    "workload names no program; set workload.pattern or "
                    "workload.trace");
}

absl::Status InProgramFields(absl::Status status,
                             const lab::v1::Workload& workload) {
  return InFields(
      std::move(status),
      {{"pattern", "workload.pattern"},
       {"extent", workload.has_trace() ? "workload.trace.extent"
                                       : "workload.pattern.extent"}});
}

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
