#include "server/services/workload_service.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/control/vm_registry.h"
#include "server/control/workload_run.h"
#include "server/control/workload_source.h"
#include "server/convert/convert.h"
#include "server/convert/workload_convert.h"
#include "server/rpc/call_context.h"
#include "server/services/call.h"

namespace mmud {
namespace {

constexpr char kList[] = "workloads";

// Not the rule of mmu::Vm::Workload, which has the same reason: there the VM
// never had a workload. Here this workload is known, and has ended.
absl::Status NotRunning(const std::string& name) {
  return WithResource(
      ApiError(absl::StatusCode::kFailedPrecondition,
               mmu::Reason::kWorkloadNotRunning,
               absl::StrCat(name, " has ended; GetWorkload tells how")),
      "mmud.lab.v1.Workload", name);
}

// The number of vCPUs that a workload asks for: all, if it names none.
int VcpuCountOf(const lab::v1::Workload& asked, const ManagedVm& vm) {
  return asked.vcpu_count() == 0 ? vm.vm().config().vcpu_count
                                 : asked.vcpu_count();
}

// Checks the settings of a workload that do not depend on its program, and sets
// them in `options`. `vcpu_count`: the number of the workload's vCPUs.
// INVALID_VCPU_COUNT, INVALID_PATTERN.
absl::Status ApplyLimits(const lab::v1::Workload& workload, int vcpu_count,
                         const ManagedVm& vm, mmu::WorkloadOptions* options) {
  // Check this before a source is made for each vCPU.
  if (absl::Status status =
          vm.vm().CheckWorkload(vcpu_count, workload.max_accesses_per_second());
      !status.ok()) {
    return InFields(std::move(status), {{"vcpu_count", "workload.vcpu_count"},
                                        {"accesses_per_second",
                                         "workload.max_accesses_per_second"}});
  }
  options->accesses_per_second = workload.max_accesses_per_second();
  if (workload.has_max_duration() &&
      (!FromProto(workload.max_duration(), &options->max_duration) ||
       options->max_duration <= absl::ZeroDuration())) {
    return WrongValue(mmu::Reason::kInvalidPattern, "workload.max_duration",
                      Show(workload.max_duration()), "positive, or unset");
  }
  return absl::OkStatus();
}

// The sources of a requested workload, which runs on `vcpu_count` vCPUs. The
// errors of ToProgram and MakeSources.
absl::StatusOr<WorkloadSources> SourcesOf(const lab::v1::Workload& asked,
                                          int vcpu_count, const ManagedVm& vm,
                                          const std::string& trace_dir) {
  const absl::StatusOr<WorkloadProgram> program = ToProgram(asked);
  if (!program.ok()) return program.status();
  absl::StatusOr<WorkloadSources> sources =
      MakeSources(*program, static_cast<uint32_t>(vcpu_count), vm, trace_dir);
  if (!sources.ok()) return InProgramFields(sources.status(), asked);
  return sources;
}

// The description to keep of a requested workload; other fields of the request
// are dropped.
lab::v1::Workload Describe(const lab::v1::Workload& asked, const ManagedVm& vm,
                           int vcpu_count, int64_t total_access_count) {
  lab::v1::Workload description = asked;
  description.DiscardUnknownFields();
  description.clear_error();
  description.clear_end_time();
  description.set_name(NewWorkloadName(vm.name()));
  description.set_vm_uid(vm.uid());
  description.set_vcpu_count(vcpu_count);
  description.set_total_access_count(total_access_count);
  return description;
}

}  // namespace

WorkloadServiceImpl::WorkloadServiceImpl(DaemonState& state)
    : RpcService("mmud.lab.v1.WorkloadService", state.calls), state_(state) {
  Long("StartWorkload", this, &WorkloadServiceImpl::StartWorkload);
  Short("GetWorkload", this, &WorkloadServiceImpl::GetWorkload);
  Short("ListWorkloads", this, &WorkloadServiceImpl::ListWorkloads);
  Long("StopWorkload", this, &WorkloadServiceImpl::StopWorkload);
  CheckComplete();
}

grpc::Status WorkloadServiceImpl::StartWorkload(
    CallContext* context, const lab::v1::StartWorkloadRequest* request,
    lab::v1::StartWorkloadResponse* response) {
  return Mutate(state_, *context, "StartWorkload", WhileDraining::kRefuse,
                *request, response, [&] { return Start(*request); });
}

absl::StatusOr<lab::v1::StartWorkloadResponse> WorkloadServiceImpl::Start(
    const lab::v1::StartWorkloadRequest& request) {
  absl::StatusOr<VmUse> vm = FindVm(state_, request.vm(), "vm");
  if (!vm.ok()) return vm.status();
  if (!request.has_workload()) {
    return InvalidField(mmu::Reason::kInvalidRequest, "workload",
                        "workload is required");
  }
  const lab::v1::Workload& asked = request.workload();
  const int count = VcpuCountOf(asked, **vm);
  mmu::WorkloadOptions options;
  if (absl::Status status = ApplyLimits(asked, count, **vm, &options);
      !status.ok()) {
    return status;
  }
  absl::StatusOr<WorkloadSources> sources =
      SourcesOf(asked, count, **vm, state_.config.trace_dir);
  if (!sources.ok()) return sources.status();
  options.sources = std::move(sources->sources);

  const lab::v1::Workload description =
      Describe(asked, **vm, count, sources->total_access_count);
  const absl::StatusOr<std::shared_ptr<WorkloadRun>> run =
      state_.workloads.Start(*vm, ToDescription(description),
                             std::move(options));
  if (!run.ok()) return run.status();
  lab::v1::StartWorkloadResponse response;
  *response.mutable_workload() = ToProto(**run);
  return response;
}

absl::StatusOr<WorkloadServiceImpl::Found> WorkloadServiceImpl::Find(
    const std::string& name) {
  const absl::StatusOr<WorkloadName> parsed = ParseWorkloadName(name, "name");
  if (!parsed.ok()) return parsed.status();
  absl::StatusOr<VmUse> vm = state_.vms.Find(parsed->vm);
  if (absl::IsNotFound(vm.status())) return WorkloadNotFound(parsed->name);
  if (!vm.ok()) return vm.status();
  std::shared_ptr<WorkloadRun> run = (*vm)->workload();
  if (run == nullptr || run->description().name != parsed->name) {
    return WorkloadNotFound(parsed->name);
  }
  return Found{*std::move(vm), std::move(run)};
}

grpc::Status WorkloadServiceImpl::GetWorkload(
    CallContext*, const lab::v1::GetWorkloadRequest* request,
    lab::v1::GetWorkloadResponse* response) {
  const absl::StatusOr<Found> found = Find(request->name());
  if (!found.ok()) return ToGrpcStatus(found.status());
  *response->mutable_workload() = ToProto(*found->run);
  return grpc::Status::OK;
}

grpc::Status WorkloadServiceImpl::ListWorkloads(
    CallContext*, const lab::v1::ListWorkloadsRequest* request,
    lab::v1::ListWorkloadsResponse* response) {
  return Answer(List(*request), response);
}

absl::StatusOr<lab::v1::ListWorkloadsResponse> WorkloadServiceImpl::List(
    const lab::v1::ListWorkloadsRequest& request) {
  const absl::StatusOr<int> page_size = CheckPageSize(request.page_size());
  if (!page_size.ok()) return page_size.status();
  lab::v1::ListWorkloadsResponse response;
  if (!request.vm().empty()) {
    const absl::StatusOr<VmUse> vm = FindVm(state_, request.vm(), "vm");
    if (!vm.ok()) return vm.status();
    if (absl::Status status = CheckOnePage(request.page_token());
        !status.ok()) {
      return status;
    }
    if (const std::shared_ptr<WorkloadRun> run = (*vm)->workload()) {
      *response.add_workloads() = ToProto(*run);
    }
    return response;
  }
  const absl::StatusOr<std::string> after =
      ParsePageToken(kList, request.page_token());
  if (!after.ok()) return after.status();
  return ListAfter(*after, *page_size);
}

lab::v1::ListWorkloadsResponse WorkloadServiceImpl::ListAfter(std::string after,
                                                              int page_size) {
  lab::v1::ListWorkloadsResponse response;
  const auto limit = static_cast<size_t>(page_size);
  size_t bytes = 0;
  std::string last;  // VM of the last workload shown
  for (;;) {
    const std::vector<VmRegistry::Sight> vms = state_.vms.List(after, limit);
    for (const VmRegistry::Sight& vm : vms) {
      if (!vm.use) continue;  // being deleted
      const std::shared_ptr<WorkloadRun> run = vm.use->workload();
      if (run == nullptr) continue;
      if (response.workloads_size() == page_size || bytes >= kMaxPageBytes) {
        response.set_next_page_token(MakePageToken(kList, last));
        return response;
      }
      lab::v1::Workload& workload = *response.add_workloads();
      workload = ToProto(*run);
      bytes += workload.ByteSizeLong();
      last = vm.name;
    }
    if (vms.size() < limit) return response;
    after = vms.back().name;
  }
}

grpc::Status WorkloadServiceImpl::StopWorkload(
    CallContext* context, const lab::v1::StopWorkloadRequest* request,
    lab::v1::StopWorkloadResponse* response) {
  return Mutate(state_, *context, "StopWorkload", WhileDraining::kAllow,
                *request, response, [&] { return Stop(request->name()); });
}

absl::StatusOr<lab::v1::StopWorkloadResponse> WorkloadServiceImpl::Stop(
    const std::string& name) {
  const absl::StatusOr<Found> found = Find(name);
  if (!found.ok()) return found.status();
  WorkloadRun& run = *found->run;
  if (run.finished()) return NotRunning(run.description().name);
  // Waits for the end even if the caller has left: the workload ends in any
  // case, and a retry is to get that end.
  run.StopNow();
  run.AwaitFinished();
  lab::v1::StopWorkloadResponse response;
  *response.mutable_workload() = ToProto(run);
  return response;
}

}  // namespace mmud
