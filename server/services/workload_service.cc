#include "server/services/workload_service.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/any.pb.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/error.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/workload.h"
#include "server/base/errors.h"
#include "server/rpc/call_context.h"
#include "server/services/call.h"
#include "server/services/convert.h"
#include "server/services/operation_times.h"
#include "server/services/workload_source.h"
#include "server/workload_run.h"

namespace mmud {
namespace {

// Without those that were handled without mmu_lock.
int64_t Faults(const mmu::VcpuStatsSnapshot& stats, mmu::FaultResult result) {
  int64_t sum = 0;
  for (const uint64_t count : stats.slow_faults[static_cast<int>(result)]) {
    sum += static_cast<int64_t>(count);
  }
  return sum;
}

absl::Status NotRunning(const std::string& vm) {
  return WithResource(
      ApiError(absl::StatusCode::kFailedPrecondition, "WORKLOAD_NOT_RUNNING",
               absl::StrCat(vm, " runs no workload")),
      "mmud.v1.Vm", vm);
}

// What the operation ends with.
absl::StatusOr<google::protobuf::Any> Result(const WorkloadRun& run) {
  if (run.stop_reason() == WorkloadRun::Stop::kCancelled) {
    return CancelledOperation();
  }
  const mmu::WorkloadProgress progress = run.Progress();
  if (progress.state == mmu::WorkloadProgress::State::kFailed) {
    if (!mmu::DetailOf(progress.error).reason.empty()) return progress.error;
    switch (progress.error.code()) {
      case absl::StatusCode::kResourceExhausted:
        return ApiError(absl::StatusCode::kResourceExhausted, "TRACE_TOO_LARGE",
                        progress.error.message());
      case absl::StatusCode::kDataLoss:
        return ApiError(absl::StatusCode::kDataLoss, "TRACE_CORRUPT",
                        progress.error.message());
      case absl::StatusCode::kFailedPrecondition:
        return ApiError(absl::StatusCode::kFailedPrecondition,
                        "TRACE_TOO_LARGE", progress.error.message());
      default:
        return progress.error;
    }
  }
  v1::StartWorkloadResponse response;
  *response.mutable_statistics() = ToProto(progress);
  response.set_end(run.stop_reason() == WorkloadRun::Stop::kRequested
                       ? v1::WORKLOAD_END_STOPPED
                       : v1::WORKLOAD_END_COMPLETED);
  return ToAny(response);
}

}  // namespace

v1::WorkloadStatistics ToProto(const mmu::WorkloadProgress& progress) {
  const mmu::VcpuStatsSnapshot& stats = progress.stats;
  v1::WorkloadStatistics proto;
  proto.set_access_count(static_cast<int64_t>(stats.accesses));
  proto.set_write_count(static_cast<int64_t>(stats.writes));
  v1::FaultCounts* faults = proto.mutable_faults();
  faults->set_fixed_count(Faults(stats, mmu::FaultResult::kFixed));
  faults->set_fast_count(static_cast<int64_t>(stats.pf_fast));
  faults->set_spurious_count(Faults(stats, mmu::FaultResult::kSpurious));
  faults->set_emulate_count(Faults(stats, mmu::FaultResult::kEmulate));
  faults->set_retry_count(Faults(stats, mmu::FaultResult::kRetry));
  faults->set_error_count(static_cast<int64_t>(stats.fault_errors));
  mmu::LatencySnapshot stalls = stats.fault_fast;
  stalls.Add(stats.fault_slow);
  *proto.mutable_stalls() = ToProto(stalls);
  *proto.mutable_running_time() = ToProto(progress.running);
  return proto;
}

WorkloadServiceImpl::WorkloadServiceImpl(DaemonState& state)
    : RpcService("mmud.v1.WorkloadService", state.calls), state_(state) {
  Long("StartWorkload", this, &WorkloadServiceImpl::StartWorkload);
  Long("StopWorkload", this, &WorkloadServiceImpl::StopWorkload);
  CheckComplete();
}

grpc::Status WorkloadServiceImpl::StartWorkload(
    CallContext* context, const v1::StartWorkloadRequest* request,
    google::longrunning::Operation* response) {
  return Mutate(state_, *context, "StartWorkload", WhileDraining::kRefuse,
                *request, response, [&] { return Start(*request); });
}

absl::StatusOr<google::longrunning::Operation> WorkloadServiceImpl::Start(
    const v1::StartWorkloadRequest& request) {
  absl::StatusOr<VmUse> vm = FindVm(state_, request.vm(), "vm");
  if (!vm.ok()) return vm.status();
  const int vcpus = (*vm)->vm().config().vcpu_count;
  if (request.vcpu_count() < 0 || request.vcpu_count() > vcpus) {
    return InvalidField(
        "INVALID_VCPU_COUNT", "vcpu_count",
        absl::StrCat("vcpu_count is ", request.vcpu_count(),
                     "; it must be from 1 to ", vcpus, ", or 0 for all"));
  }
  const uint32_t count = static_cast<uint32_t>(
      request.vcpu_count() == 0 ? vcpus : request.vcpu_count());
  mmu::WorkloadOptions options;
  if (request.max_accesses_per_second() < 0) {
    return WrongValue("INVALID_PATTERN", "max_accesses_per_second",
                      request.max_accesses_per_second(), "0 or more");
  }
  options.accesses_per_second = request.max_accesses_per_second();
  if (request.has_max_duration() &&
      (!FromProto(request.max_duration(), &options.max_duration) ||
       options.max_duration <= absl::ZeroDuration())) {
    return WrongValue("INVALID_PATTERN", "max_duration",
                      Show(request.max_duration()), "positive, or unset");
  }
  absl::StatusOr<WorkloadSources> sources =
      MakeSources(request, count, **vm, state_.config.trace_dir);
  if (!sources.ok()) return sources.status();
  options.sources = std::move(sources->sources);

  absl::StatusOr<VmUse> use = state_.vms.ForOperation(*vm);
  if (!use.ok()) return use.status();
  auto held = std::make_shared<VmUse>(*std::move(use));
  auto run =
      std::make_shared<WorkloadRun>((*vm)->vm(), sources->total_access_count);
  if (!(*vm)->TrySetWorkload(run)) {
    return WithResource(
        ApiError(absl::StatusCode::kFailedPrecondition, "WORKLOAD_RUNNING",
                 absl::StrCat(request.vm(),
                              " runs a workload already; stop it first")),
        "mmud.v1.Vm", request.vm());
  }
  OperationSpec spec;
  spec.method = OperationMethod::kStartWorkload;
  auto times = std::make_shared<OperationTimes>();
  spec.run = [run, held, times]() -> absl::StatusOr<google::protobuf::Any> {
    run->RunToEnd();
    times->End();
    return Result(*run);
  };
  spec.metadata = [run, held, times] {
    v1::WorkloadMetadata metadata;
    metadata.set_vm((*held)->name());
    metadata.set_vm_uid((*held)->uid());
    times->AddTo(&metadata);
    *metadata.mutable_statistics() = ToProto(run->Progress());
    metadata.set_total_access_count(run->total_access_count());
    return ToAny(metadata);
  };
  spec.cancel = [run, held] { run->StopNow(WorkloadRun::Stop::kCancelled); };
  // The guest runs once there is an operation that says so, and not before:
  // what is refused has done nothing to it.
  absl::StatusOr<google::longrunning::Operation> operation;
  const absl::Status started = run->Start(std::move(options), [&] {
    operation = state_.operations.Start(std::move(spec));
    return operation.status();
  });
  if (!started.ok()) return started;
  return operation;
}

grpc::Status WorkloadServiceImpl::StopWorkload(
    CallContext* context, const v1::StopWorkloadRequest* request,
    v1::StopWorkloadResponse* response) {
  return Mutate(
      state_, *context, "StopWorkload", WhileDraining::kAllow, *request,
      response, [&]() -> absl::StatusOr<v1::StopWorkloadResponse> {
        absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
        if (!vm.ok()) return vm.status();
        const std::shared_ptr<WorkloadRun> run = (*vm)->workload();
        if (run == nullptr || run->finished()) return NotRunning(request->vm());
        // To its end, whoever has left: it ends in any case, and a retry is to
        // hear of that one, not to stop the workload after it.
        run->StopNow(WorkloadRun::Stop::kRequested);
        run->AwaitFinished();
        v1::StopWorkloadResponse answer;
        *answer.mutable_statistics() = ToProto(run->Progress());
        return answer;
      });
}

}  // namespace mmud
