#include "server/services/aging_service.h"

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "google/longrunning/operations.pb.h"
#include "grpcpp/support/status.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/vm/jobs/generation_scan.h"
#include "mmu_core/working_set/hot_ranges.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set.h"
#include "mmu_core/working_set/working_set_snapshot.h"
#include "server/base/errors.h"
#include "server/base/etag.h"
#include "server/control/age_ranges.h"
#include "server/control/ager.h"
#include "server/control/generation_job.h"
#include "server/control/operation_store.h"
#include "server/convert/ager_convert.h"
#include "server/convert/aging_convert.h"
#include "server/convert/operation_convert.h"
#include "server/convert/operation_times.h"
#include "server/convert/working_set_convert.h"
#include "server/rpc/call_context.h"
#include "server/services/call.h"

namespace mmud {
namespace {

// NO_GENERATION before the first one.
absl::StatusOr<std::shared_ptr<const mmu::WorkingSet>> FindWorkingSet(
    const ManagedVm& vm) {
  std::shared_ptr<const mmu::WorkingSet> working_set = vm.vm().FindWorkingSet();
  if (working_set != nullptr && working_set->View().newest > 0) {
    return working_set;
  }
  return AboutVm(
      ApiError(absl::StatusCode::kFailedPrecondition,
               mmu::Reason::kNoGeneration,
               absl::StrCat("the working set of ", vm.name(),
                            " has no generation yet; make one with "
                            "CreateGeneration, or switch the ager on with "
                            "UpdateAger")),
      vm.name());
}

// The generation `sequence`, as far as the VM still knows it.
v1::Generation DescribeGeneration(const ManagedVm& vm, uint64_t sequence) {
  v1::Generation proto;
  proto.set_sequence(static_cast<int64_t>(sequence));
  const auto working_set = vm.vm().FindWorkingSet();
  if (working_set == nullptr) return proto;
  const absl::optional<mmu::Generation> generation =
      working_set->FindGeneration(sequence);
  if (!generation.has_value()) return proto;
  return ToProto(*generation, vm.vm().MmuKinds(), mmu::MonotonicNanos());
}

v1::Ager DescribeAger(ManagedVm& vm) {
  v1::Ager ager = ToProto(vm.ager().state());
  ager.set_vm(vm.name());
  ager.set_vm_uid(vm.uid());
  return ager;
}

// The etag is checked and the settings changed in one step: if two callers saw
// the same settings, one of them gets ETAG_MISMATCH.
absl::Status ChangeAger(const v1::UpdateAgerRequest& request,
                        AgerSettings* settings) {
  if (absl::Status same = CheckEtag(request.etag(), EtagOf(*settings),
                                    "mmud.v1.Ager", request.vm());
      !same.ok()) {
    return same;
  }
  const absl::Status changed = Change(request.settings(), settings);
  return changed.ok() ? changed : InField(changed, "settings.");
}

OperationSpec GenerationSpec(VmUse use, std::shared_ptr<GenerationJob> job) {
  auto vm = std::make_shared<VmUse>(std::move(use));
  auto times = std::make_shared<OperationTimes>();
  OperationSpec spec;
  spec.method = OperationMethod::kCreateGeneration;
  spec.vm = (*vm)->name();
  spec.run = [vm, job, times]() -> absl::StatusOr<PackedMessage> {
    const auto end = absl::MakeCleanup([&times] { times->End(); });
    const absl::StatusOr<bool> whole = job->Run();
    if (!whole.ok()) return whole.status();
    if (!*whole) return CancelledOperation();
    return Pack(DescribeGeneration(**vm, job->progress().sequence));
  };
  spec.metadata = [vm, job, times] {
    const GenerationProgress progress = job->progress();
    v1::GenerationMetadata metadata = ToMetadata(progress);
    metadata.set_vm((*vm)->name());
    metadata.set_vm_uid((*vm)->uid());
    *metadata.mutable_generation() =
        DescribeGeneration(**vm, progress.sequence);
    times->AddTo(&metadata);
    return Pack(metadata);
  };
  spec.cancel = [vm, job] { job->Cancel(); };
  return spec;
}

}  // namespace

AgingServiceImpl::AgingServiceImpl(DaemonState& state)
    : RpcService("mmud.v1.AgingService", state.calls), state_(state) {
  Long("AgeRange", this, &AgingServiceImpl::AgeRange);
  Long("CreateGeneration", this, &AgingServiceImpl::CreateGeneration);
  Long("GetWorkingSet", this, &AgingServiceImpl::GetWorkingSet);
  Long("ListHotRanges", this, &AgingServiceImpl::ListHotRanges);
  Short("ForgetWorkingSet", this, &AgingServiceImpl::ForgetWorkingSet);
  Short("GetAger", this, &AgingServiceImpl::GetAger);
  Short("UpdateAger", this, &AgingServiceImpl::UpdateAger);
  CheckComplete();
}

grpc::Status AgingServiceImpl::AgeRange(CallContext* context,
                                        const v1::AgeRangeRequest* request,
                                        v1::AgeRangeResponse* response) {
  return Mutate(state_, *context, "AgeRange", WhileDraining::kAllow, *request,
                response, [&] { return Age(*context, *request); });
}

absl::StatusOr<v1::AgeRangeResponse> AgingServiceImpl::Age(
    const CallContext& context, const v1::AgeRangeRequest& request) {
  absl::StatusOr<VmUse> vm = FindVm(state_, request.vm(), "vm");
  if (!vm.ok()) return vm.status();
  const absl::StatusOr<AgePlan> plan = ToAgePlan(request, (*vm)->SortedSlots());
  if (!plan.ok()) return plan.status();
  absl::StatusOr<AgedRanges> aged =
      AgeRanges(**vm, *plan,
                {.keep_going = [&] { return CheckVmCall(context, **vm); },
                 .part_done =
                     [&] {
                       // A test changes nothing.
                       if (plan->mode == mmu::AgeMode::kTest) return;
                       state_.call_log.NotePartDone(context.id());
                     }});
  if (!aged.ok()) return InFields(aged.status(), {{"range", "ranges"}});
  return ToResponse((*vm)->vm().MmuKinds(), *plan, *std::move(aged));
}

grpc::Status AgingServiceImpl::CreateGeneration(
    CallContext* context, const v1::CreateGenerationRequest* request,
    google::longrunning::Operation* response) {
  return Mutate(state_, *context, "CreateGeneration", WhileDraining::kRefuse,
                *request, response, [&] { return Create(*request); });
}

absl::StatusOr<google::longrunning::Operation> AgingServiceImpl::Create(
    const v1::CreateGenerationRequest& request) {
  const absl::StatusOr<VmUse> vm = FindVm(state_, request.vm(), "vm");
  if (!vm.ok()) return vm.status();
  const absl::StatusOr<mmu::GenerationOptions> options =
      ToGenerationOptions(request);
  if (!options.ok()) return options.status();
  const absl::StatusOr<int> cpu_percent =
      ToCpuPercent(request.cpu_percent() == 0 ? 100 : request.cpu_percent());
  if (!cpu_percent.ok()) return cpu_percent.status();
  absl::StatusOr<VmUse> use = state_.vms.ForOperation(*vm);
  if (!use.ok()) return use.status();
  absl::StatusOr<std::shared_ptr<GenerationJob>> job =
      GenerationJob::Begin(**vm, *options, *cpu_percent);
  if (!job.ok()) return AboutVm(job.status(), (*vm)->name());
  return ToProto(state_.operations.Start(
      GenerationSpec(*std::move(use), *std::move(job))));
}

grpc::Status AgingServiceImpl::GetWorkingSet(
    CallContext* /*context*/, const v1::GetWorkingSetRequest* request,
    v1::GetWorkingSetResponse* response) {
  return Answer(Get(*request), response);
}

absl::StatusOr<v1::GetWorkingSetResponse> AgingServiceImpl::Get(
    const v1::GetWorkingSetRequest& request) {
  const absl::StatusOr<VmUse> vm = FindVm(state_, request.vm(), "vm");
  if (!vm.ok()) return vm.status();
  const absl::StatusOr<WorkingSetQuery> query = ToWorkingSetQuery(request);
  if (!query.ok()) return query.status();
  const absl::StatusOr<std::shared_ptr<const mmu::WorkingSet>> working_set =
      FindWorkingSet(**vm);
  if (!working_set.ok()) return working_set.status();
  const int64_t now = mmu::MonotonicNanos();
  v1::GetWorkingSetResponse response;
  v1::WorkingSet& answer = *response.mutable_working_set();
  answer = ToProto((*working_set)->TakeSnapshot(now, query->windows_nanos),
                   (*vm)->vm().MmuKinds(), now);
  answer.set_vm((*vm)->name());
  answer.set_vm_uid((*vm)->uid());
  if (query->heat_map_unit.has_value()) {
    const absl::Status added =
        AddHeatMaps((*working_set)->View(), *query->heat_map_unit, &answer);
    if (!added.ok()) return added;
  }
  return response;
}

grpc::Status AgingServiceImpl::ListHotRanges(
    CallContext* /*context*/, const v1::ListHotRangesRequest* request,
    v1::ListHotRangesResponse* response) {
  return Answer(List(*request), response);
}

absl::StatusOr<v1::ListHotRangesResponse> AgingServiceImpl::List(
    const v1::ListHotRangesRequest& request) {
  const absl::StatusOr<VmUse> vm = FindVm(state_, request.vm(), "vm");
  if (!vm.ok()) return vm.status();
  const absl::StatusOr<mmu::HeatQuery> query = ToHeatQuery(request);
  if (!query.ok()) return query.status();
  const absl::StatusOr<std::shared_ptr<const mmu::WorkingSet>> working_set =
      FindWorkingSet(**vm);
  if (!working_set.ok()) return working_set.status();
  const mmu::GenerationView view = (*working_set)->View();
  return ToResponse(view, mmu::ListHotRanges(view, *query));
}

grpc::Status AgingServiceImpl::ForgetWorkingSet(
    CallContext* context, const v1::ForgetWorkingSetRequest* request,
    v1::ForgetWorkingSetResponse* response) {
  return Mutate(state_, *context, "ForgetWorkingSet", WhileDraining::kAllow,
                *request, response, [&] { return Forget(*request); });
}

absl::StatusOr<v1::ForgetWorkingSetResponse> AgingServiceImpl::Forget(
    const v1::ForgetWorkingSetRequest& request) {
  const absl::StatusOr<VmUse> vm = FindVm(state_, request.vm(), "vm");
  if (!vm.ok()) return vm.status();
  (*vm)->ager().ForgetWorkingSet();
  state_.aging.Wake();
  return v1::ForgetWorkingSetResponse();
}

grpc::Status AgingServiceImpl::GetAger(CallContext* /*context*/,
                                       const v1::GetAgerRequest* request,
                                       v1::GetAgerResponse* response) {
  const absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
  if (!vm.ok()) return ToGrpcStatus(vm.status());
  *response->mutable_ager() = DescribeAger(**vm);
  return grpc::Status::OK;
}

grpc::Status AgingServiceImpl::UpdateAger(CallContext* context,
                                          const v1::UpdateAgerRequest* request,
                                          v1::UpdateAgerResponse* response) {
  return Mutate(state_, *context, "UpdateAger", WhileDraining::kAllow, *request,
                response, [&] { return Update(*request); });
}

absl::StatusOr<v1::UpdateAgerResponse> AgingServiceImpl::Update(
    const v1::UpdateAgerRequest& request) {
  const absl::StatusOr<VmUse> vm = FindVm(state_, request.vm(), "vm");
  if (!vm.ok()) return vm.status();
  if (!request.has_settings()) {
    return InvalidField(mmu::Reason::kInvalidRequest, "settings",
                        "settings is required");
  }
  if (absl::Status status = (*vm)->ager().Update([&](AgerSettings* settings) {
        return ChangeAger(request, settings);
      });
      !status.ok()) {
    return status;
  }
  state_.aging.Wake();
  v1::UpdateAgerResponse response;
  *response.mutable_ager() = DescribeAger(**vm);
  return response;
}

}  // namespace mmud
