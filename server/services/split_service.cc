#include "server/services/split_service.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "google/longrunning/operations.pb.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/vm/jobs/recover_job.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"
#include "server/base/etag.h"
#include "server/base/resource_names.h"
#include "server/control/operation.h"
#include "server/control/operation_store.h"
#include "server/convert/convert.h"
#include "server/convert/operation_convert.h"
#include "server/convert/operation_times.h"
#include "server/convert/split_convert.h"
#include "server/rpc/call_context.h"
#include "server/services/call.h"

namespace mmud {
namespace {

// Holds a VM's only split or recovery, and a use of the VM.
class SplitTurn {
 public:
  explicit SplitTurn(VmUse vm) : vm_(std::move(vm)) {}
  ~SplitTurn() { vm_->EndSplit(); }
  SplitTurn(const SplitTurn&) = delete;
  SplitTurn& operator=(const SplitTurn&) = delete;
  ManagedVm& vm() const { return *vm_; }

 private:
  const VmUse vm_;
};

absl::StatusOr<std::shared_ptr<SplitTurn>> TakeTurn(DaemonState& state,
                                                    const VmUse& vm) {
  if (!vm->TryBeginSplit()) {
    return AboutVm(
        ApiError(absl::StatusCode::kAborted, mmu::Reason::kSplitRunning,
                 absl::StrCat("a split or recovery of ", vm->name(),
                              " runs already; cancel it or wait for it")),
        vm->name());
  }
  absl::StatusOr<VmUse> use = state.vms.ForOperation(vm);
  if (!use.ok()) {
    vm->EndSplit();
    return use.status();
  }
  return std::make_shared<SplitTurn>(*std::move(use));
}

// The target is kept in the operation, so that it outlives the job.
OperationSpec SplitSpec(std::shared_ptr<SplitTurn> turn,
                        std::shared_ptr<mmu::SplitJob> job,
                        v1::PageSize target) {
  OperationSpec spec;
  spec.method = OperationMethod::kSplitHugePages;
  spec.vm = turn->vm().name();
  spec.split = job;
  auto times = std::make_shared<OperationTimes>();
  spec.run = [turn, job, times]() -> absl::StatusOr<PackedMessage> {
    const auto end = absl::MakeCleanup([&times] { times->End(); });
    if (absl::Status status = job->Run(); !status.ok()) return status;
    const mmu::SplitProgress progress = job->Progress();
    if (progress.state == mmu::SplitProgress::State::kCancelled) {
      return CancelledOperation();
    }
    return Pack(ToResponse(progress));
  };
  spec.metadata = [turn, job, target, times] {
    v1::SplitMetadata metadata = ToMetadata(*job);
    metadata.set_vm(turn->vm().name());
    metadata.set_vm_uid(turn->vm().uid());
    times->AddTo(&metadata);
    metadata.set_target_page_size(target);
    return Pack(metadata);
  };
  spec.cancel = [turn, job] { job->Cancel(); };
  return spec;
}

// The memslot that an error of mmu_core about a recovery names, "" if it names
// none, and the error in the words of RecoverHugePagesRequest: about its field
// and without the memslot, since the API's errors name resources instead.
struct RecoverError {
  absl::Status status;
  std::string memslot;
};
RecoverError ToRecoverError(const absl::Status& status, const ManagedVm& vm) {
  mmu::ErrorDetail detail = mmu::DetailOf(status);
  const auto slot = detail.metadata.find("slot");
  uint32_t id = 0;
  if (slot == detail.metadata.end() || !absl::SimpleAtoi(slot->second, &id)) {
    return {InFields(status, {{"range", "ranges"}}), ""};
  }
  detail.metadata.erase(slot);
  return {mmu::MakeError(status.code(), detail, std::string(status.message())),
          MakeMemslotName(vm.name(), id)};
}

// An error if huge pages in `ranges` cannot be recovered in the VM's present
// state. The error is about the memslot that mmu_core names, and not about the
// call's ranges.
absl::Status CheckRecover(const ManagedVm& vm,
                          const std::vector<mmu::GfnRange>& ranges) {
  const RecoverError error =
      ToRecoverError(vm.vm().CheckRecoverHugePages(ranges), vm);
  if (error.memslot.empty()) return error.status;
  return WithResource(
      ApiError(error.status.code(), mmu::DetailOf(error.status).reason,
               error.status.message()),
      "mmud.v1.Memslot", error.memslot);
}

OperationSpec RecoverSpec(std::shared_ptr<SplitTurn> turn,
                          std::shared_ptr<mmu::RecoverJob> job) {
  OperationSpec spec;
  spec.method = OperationMethod::kRecoverHugePages;
  spec.vm = turn->vm().name();
  auto times = std::make_shared<OperationTimes>();
  spec.run = [turn, job, times]() -> absl::StatusOr<PackedMessage> {
    const auto end = absl::MakeCleanup([&times] { times->End(); });
    if (absl::Status status = job->Run(); !status.ok()) {
      return ToRecoverError(status, turn->vm()).status;
    }
    const mmu::RecoverJob::Progress progress = job->progress();
    if (progress.cancelled) return CancelledOperation();
    return Pack(ToResponse(progress));
  };
  spec.metadata = [turn, job, times] {
    v1::RecoverMetadata metadata = ToMetadata(*job);
    metadata.set_vm(turn->vm().name());
    metadata.set_vm_uid(turn->vm().uid());
    times->AddTo(&metadata);
    return Pack(metadata);
  };
  spec.cancel = [turn, job] { job->Cancel(); };
  return spec;
}

// Errors: ETAG_MISMATCH, INVALID_THROTTLE.
absl::Status ChangeThrottle(const v1::UpdateSplitRequest& request,
                            mmu::SplitJob& job) {
  // The etag is checked and the throttle changed in one step: if two callers
  // saw the same throttle, one of them gets ETAG_MISMATCH.
  return job.ChangeThrottle([&](mmu::Throttle* current) {
    absl::Status same =
        CheckEtag(request.etag(), EtagOf(*current),
                  "google.longrunning.Operation", request.operation());
    if (!same.ok()) return same;
    const absl::StatusOr<mmu::Throttle> changed =
        ToThrottle(request.throttle(), "throttle", *current);
    if (changed.ok()) *current = *changed;
    return changed.status();
  });
}

}  // namespace

SplitServiceImpl::SplitServiceImpl(DaemonState& state)
    : RpcService("mmud.v1.SplitService", state.calls), state_(state) {
  Long("SplitHugePages", this, &SplitServiceImpl::SplitHugePages);
  Long("RecoverHugePages", this, &SplitServiceImpl::RecoverHugePages);
  Short("UpdateSplit", this, &SplitServiceImpl::UpdateSplit);
  Short("PauseSplit", this, &SplitServiceImpl::PauseSplit);
  Short("ResumeSplit", this, &SplitServiceImpl::ResumeSplit);
  CheckComplete();
}

grpc::Status SplitServiceImpl::SplitHugePages(
    CallContext* context, const v1::SplitHugePagesRequest* request,
    google::longrunning::Operation* response) {
  return Mutate(state_, *context, "SplitHugePages", WhileDraining::kRefuse,
                *request, response, [&] { return Split(*request); });
}

absl::StatusOr<google::longrunning::Operation> SplitServiceImpl::Split(
    const v1::SplitHugePagesRequest& request) {
  absl::StatusOr<VmUse> vm = FindVm(state_, request.vm(), "vm");
  if (!vm.ok()) return vm.status();
  absl::StatusOr<mmu::SplitRequest> split =
      ToSplitRequest(request, (*vm)->SortedSlots());
  if (!split.ok()) return split.status();
  absl::StatusOr<std::shared_ptr<mmu::SplitJob>> job =
      (*vm)->vm().MakeSplitJob(*split);
  if (!job.ok()) {
    return InFields(job.status(), {{"target", "target_page_size"}});
  }
  if (request.validate_only()) {
    OperationView checked;
    checked.done = true;
    checked.metadata = Pack(ToMetadata(**job));
    checked.response = Pack(v1::SplitHugePagesResponse());
    return ToProto(checked);
  }
  absl::StatusOr<std::shared_ptr<SplitTurn>> turn = TakeTurn(state_, *vm);
  if (!turn.ok()) return turn.status();
  return ToProto(state_.operations.Start(
      SplitSpec(*std::move(turn), *std::move(job), ToPageSize(split->target))));
}

grpc::Status SplitServiceImpl::RecoverHugePages(
    CallContext* context, const v1::RecoverHugePagesRequest* request,
    google::longrunning::Operation* response) {
  return Mutate(state_, *context, "RecoverHugePages", WhileDraining::kRefuse,
                *request, response, [&] { return Recover(*request); });
}

absl::StatusOr<google::longrunning::Operation> SplitServiceImpl::Recover(
    const v1::RecoverHugePagesRequest& request) {
  absl::StatusOr<VmUse> vm = FindVm(state_, request.vm(), "vm");
  if (!vm.ok()) return vm.status();
  absl::StatusOr<std::vector<mmu::GfnRange>> ranges =
      ToRangesOfVm(request.ranges(), (*vm)->SortedSlots(), "ranges");
  if (!ranges.ok()) return ranges.status();
  const absl::StatusOr<mmu::Throttle> throttle =
      ToThrottle(request.throttle(), "throttle");
  if (!throttle.ok()) return throttle.status();
  if (absl::Status status = CheckRecover(**vm, *ranges); !status.ok()) {
    return status;
  }
  absl::StatusOr<std::shared_ptr<SplitTurn>> turn = TakeTurn(state_, *vm);
  if (!turn.ok()) return turn.status();
  if (request.ranges().empty()) {
    // All slots that exist now. From now on no slot can go (slots do not change
    // while a split or recovery works on them), but one may have gone just
    // before.
    absl::MutexLock lock(&(*vm)->slots_mu());
    ranges = ToRangesOfVm(request.ranges(), (*vm)->SortedSlots(), "ranges");
    if (!ranges.ok()) return ranges.status();
  }
  auto job = (*vm)->vm().MakeRecoverJob(*ranges, *throttle);
  if (!job.ok()) return job.status();  // not after ToThrottle
  return ToProto(
      state_.operations.Start(RecoverSpec(*std::move(turn), *std::move(job))));
}

grpc::Status SplitServiceImpl::UpdateSplit(
    CallContext* context, const v1::UpdateSplitRequest* request,
    google::longrunning::Operation* response) {
  return Mutate(state_, *context, "UpdateSplit", WhileDraining::kAllow,
                *request, response,
                [&]() -> absl::StatusOr<google::longrunning::Operation> {
                  const absl::StatusOr<std::string> name =
                      ParseOperationName(request->operation(), "operation");
                  if (!name.ok()) return name.status();
                  if (!request->has_throttle()) {
                    return InvalidField(mmu::Reason::kInvalidThrottle,
                                        "throttle", "throttle is required");
                  }
                  const absl::StatusOr<std::shared_ptr<mmu::SplitJob>> job =
                      state_.operations.FindSplit(*name);
                  if (!job.ok()) return job.status();
                  if (absl::Status status = ChangeThrottle(*request, **job);
                      !status.ok()) {
                    return status;
                  }
                  return ToProto(state_.operations.Get(*name));
                });
}

grpc::Status SplitServiceImpl::PauseSplit(
    CallContext* context, const v1::PauseSplitRequest* request,
    google::longrunning::Operation* response) {
  return Mutate(state_, *context, "PauseSplit", WhileDraining::kAllow, *request,
                response,
                [&]() -> absl::StatusOr<google::longrunning::Operation> {
                  const absl::StatusOr<std::string> name =
                      ParseOperationName(request->operation(), "operation");
                  if (!name.ok()) return name.status();
                  const absl::StatusOr<std::shared_ptr<mmu::SplitJob>> job =
                      state_.operations.FindSplit(*name);
                  if (!job.ok()) return job.status();
                  (*job)->Pause();
                  return ToProto(state_.operations.Get(*name));
                });
}

grpc::Status SplitServiceImpl::ResumeSplit(
    CallContext* context, const v1::ResumeSplitRequest* request,
    google::longrunning::Operation* response) {
  return Mutate(state_, *context, "ResumeSplit", WhileDraining::kAllow,
                *request, response,
                [&]() -> absl::StatusOr<google::longrunning::Operation> {
                  const absl::StatusOr<std::string> name =
                      ParseOperationName(request->operation(), "operation");
                  if (!name.ok()) return name.status();
                  const absl::StatusOr<std::shared_ptr<mmu::SplitJob>> job =
                      state_.operations.FindSplit(*name);
                  if (!job.ok()) return job.status();
                  (*job)->Resume();
                  return ToProto(state_.operations.Get(*name));
                });
}

}  // namespace mmud
