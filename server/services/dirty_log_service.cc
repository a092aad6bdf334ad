#include "server/services/dirty_log_service.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "google/longrunning/operations.pb.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/control/dirty_log_calls.h"
#include "server/control/dirty_log_control.h"
#include "server/control/dirty_log_stream.h"
#include "server/control/dirty_rate_history.h"
#include "server/control/named_pages.h"
#include "server/control/operation.h"
#include "server/control/operation_store.h"
#include "server/control/shown_vm.h"
#include "server/convert/convert.h"
#include "server/convert/dirty_log_calls_convert.h"
#include "server/convert/dirty_log_codec.h"
#include "server/convert/dirty_log_control_convert.h"
#include "server/convert/dirty_log_convert.h"
#include "server/convert/dirty_log_stream_convert.h"
#include "server/convert/dirty_rate_convert.h"
#include "server/convert/operation_convert.h"
#include "server/convert/operation_times.h"
#include "server/rpc/call_context.h"
#include "server/services/call.h"
#include "server/services/dirty_page_chunks.h"
#include "server/services/harvest_stream.h"

namespace mmud {
namespace {

std::vector<absl::Duration> UsualWindows() {
  return {absl::Seconds(1), absl::Seconds(10), absl::Minutes(1)};
}

// Holds a VM's only start of a dirty log, and a use of the VM.
class StartTurn {
 public:
  explicit StartTurn(VmUse vm) : vm_(std::move(vm)) {}
  ~StartTurn() { vm_->EndDirtyLogStart(); }
  StartTurn(const StartTurn&) = delete;
  StartTurn& operator=(const StartTurn&) = delete;
  ManagedVm& vm() const { return *vm_; }

 private:
  const VmUse vm_;
};

absl::StatusOr<std::shared_ptr<StartTurn>> TakeTurn(DaemonState& state,
                                                    const VmUse& vm) {
  if (!vm->TryBeginDirtyLogStart()) {
    return AboutVm(
        ApiError(
            absl::StatusCode::kAborted, mmu::Reason::kDirtyLogStarting,
            absl::StrCat("another StartDirtyLog is running for ", vm->name(),
                         "; wait for its operation or cancel "
                         "it")),
        vm->name());
  }
  absl::StatusOr<VmUse> use = state.vms.ForOperation(vm);
  if (!use.ok()) {
    vm->EndDirtyLogStart();
    return use.status();
  }
  return std::make_shared<StartTurn>(*std::move(use));
}

// The pages of a memslot of `vm` that a request's field `pages` names.
// INVALID_SLOT, MEMSLOT_NOT_FOUND, and the errors of DecodeSlotPages.
absl::StatusOr<NamedPages> FindPages(const v1::SlotPages& pages,
                                     const ManagedVm& vm) {
  const absl::StatusOr<uint32_t> slot = ToSlot(pages.slot(), "pages.slot");
  if (!slot.ok()) return slot.status();
  const absl::optional<mmu::MemslotInfo> info = vm.FindSlot(*slot);
  if (!info.has_value()) {
    return MemslotNotFound(MakeMemslotName(vm.name(), *slot));
  }
  return DecodeSlotPages(pages, info->config);
}

OperationSpec StartSpec(std::shared_ptr<StartTurn> turn,
                        std::shared_ptr<DirtyLogStartJob> job) {
  OperationSpec spec;
  spec.method = OperationMethod::kStartDirtyLog;
  spec.vm = turn->vm().name();
  auto times = std::make_shared<OperationTimes>();
  spec.run = [turn, job, times]() -> absl::StatusOr<PackedMessage> {
    const auto end = absl::MakeCleanup([&times] { times->End(); });
    const absl::StatusOr<StartedDirtyLog> started = job->Run();
    if (!started.ok()) return started.status();
    return Pack(ToResponse(FactsOf(job->vm()), *started));
  };
  spec.metadata = [turn, job, times] {
    v1::StartDirtyLogMetadata metadata = ToMetadata(job->progress());
    metadata.set_vm(job->vm().name());
    metadata.set_vm_uid(job->vm().uid());
    metadata.set_owner(job->owner());
    times->AddTo(&metadata);
    return Pack(metadata);
  };
  spec.cancel = [turn, job] { job->Cancel(); };
  return spec;
}

absl::StatusOr<v1::AcquireDirtyLogResponse> Acquire(
    const v1::AcquireDirtyLogRequest& request, ManagedVm& vm) {
  const absl::StatusOr<mmu::LogClaim> claim =
      ToLogClaim(request.owner(), request.owner_token(),
                 request.has_lease() ? &request.lease() : nullptr);
  if (!claim.ok()) return claim.status();
  const absl::StatusOr<absl::optional<mmu::LogId>> id =
      ToLogId(request.log_id());
  if (!id.ok()) return id.status();
  mmu::LogOwner::Acquired acquired = mmu::LogOwner::Acquired::kNewly;
  const absl::StatusOr<mmu::DirtyLogView> log = vm.vm().AcquireDirtyLog(
      *claim, *id,
      request.force() ? mmu::LogOwner::Force::kYes : mmu::LogOwner::Force::kNo,
      mmu::MonotonicTime::Now(), &acquired);
  if (!log.ok()) return AboutLog(log.status(), vm.name());
  v1::AcquireDirtyLogResponse response;
  *response.mutable_dirty_log() = ToProto(FactsOf(vm), *log);
  response.set_already_owned(acquired == mmu::LogOwner::Acquired::kAlready);
  return response;
}

// The messages of one ReadDirtyPages: header, chunks, trailer.
class PageStream {
 public:
  PageStream(VmUse vm, const DirtyLogPlan& plan, const ChunkForm& form)
      : vm_(std::move(vm)), header_(HeaderOf(plan)), chunks_(plan, form) {}

  const ManagedVm& vm() const { return *vm_; }

  absl::StatusOr<bool> Next(const std::function<absl::Status()>& keep_going,
                            v1::ReadDirtyPagesResponse* message) {
    switch (part_) {
      case Part::kHeader:
        *message->mutable_header() = header_;
        part_ = Part::kChunks;
        return true;
      case Part::kChunks: {
        absl::StatusOr<absl::optional<v1::DirtyLogChunk>> chunk =
            chunks_.Next(*vm_, keep_going);
        if (!chunk.ok()) return chunk.status();
        if (chunk->has_value()) {
          *message->mutable_chunk() = **std::move(chunk);
          return true;
        }
        *message->mutable_trailer() = chunks_.Trailer();
        part_ = Part::kEnd;
        return true;
      }
      case Part::kEnd:
        break;
    }
    return false;
  }

 private:
  enum class Part : uint8_t { kHeader, kChunks, kEnd };

  const VmUse vm_;
  const v1::DirtyLogHeader header_;
  DirtyPageChunks chunks_;
  Part part_ = Part::kHeader;
};

}  // namespace

DirtyLogServiceImpl::DirtyLogServiceImpl(DaemonState& state)
    : RpcService("mmud.v1.DirtyLogService", state.calls), state_(state) {
  Long("StartDirtyLog", this, &DirtyLogServiceImpl::StartDirtyLog);
  // Long, because a count of open pages waits for a seal.
  Long("GetDirtyLog", this, &DirtyLogServiceImpl::GetDirtyLog);
  Long("AcquireDirtyLog", this, &DirtyLogServiceImpl::AcquireDirtyLog);
  Long("SealDirtyLog", this, &DirtyLogServiceImpl::SealDirtyLog);
  Stream("ReadDirtyPages", this, &DirtyLogServiceImpl::ReadDirtyPages);
  Long("ClearDirtyLog", this, &DirtyLogServiceImpl::ClearDirtyLog);
  Long("AcknowledgePages", this, &DirtyLogServiceImpl::AcknowledgePages);
  Long("StopDirtyLog", this, &DirtyLogServiceImpl::StopDirtyLog);
  Bidi("HarvestDirtyLog", this, &DirtyLogServiceImpl::HarvestDirtyLog);
  Short("GetDirtyRate", this, &DirtyLogServiceImpl::GetDirtyRate);
  CheckComplete();
}

grpc::Status DirtyLogServiceImpl::StartDirtyLog(
    CallContext* context, const v1::StartDirtyLogRequest* request,
    google::longrunning::Operation* response) {
  return Mutate(
      state_, *context, "StartDirtyLog", WhileDraining::kRefuse, *request,
      response, [&]() -> absl::StatusOr<google::longrunning::Operation> {
        const absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
        if (!vm.ok()) return vm.status();
        absl::StatusOr<std::shared_ptr<StartTurn>> turn = TakeTurn(state_, *vm);
        if (!turn.ok()) return turn.status();
        absl::StatusOr<DirtyLogStartRequest> start =
            ToStartRequest(*request, FactsOf(**vm));
        if (!start.ok()) return start.status();
        if (absl::Status status = CheckSlots(**vm, start->start.config.slots);
            !status.ok()) {
          return status;
        }
        absl::StatusOr<std::shared_ptr<DirtyLogStartJob>> job =
            DirtyLogStartJob::Create(*std::move(start), (*turn)->vm());
        if (!job.ok()) return job.status();
        return ToProto(state_.operations.Start(
            StartSpec(*std::move(turn), *std::move(job))));
      });
}

grpc::Status DirtyLogServiceImpl::GetDirtyLog(
    CallContext*, const v1::GetDirtyLogRequest* request,
    v1::GetDirtyLogResponse* response) {
  const absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
  if (!vm.ok()) return ToGrpcStatus(vm.status());
  const absl::StatusOr<mmu::DirtyLogView> log = GetLog(**vm);
  if (!log.ok()) return ToGrpcStatus(log.status());
  *response->mutable_dirty_log() = ToProto(FactsOf(**vm), *log);
  if (!request->count_open_pages()) return grpc::Status::OK;
  const std::vector<mmu::SlotUndelivered> counts =
      (*vm)->vm().CountUndeliveredBySlot(/*cost=*/nullptr);
  auto counted = counts.begin();  // both in the order of the slots' ids
  for (v1::SlotDirtyLog& slot :
       *response->mutable_dirty_log()->mutable_slots()) {
    const auto id = static_cast<uint32_t>(slot.slot());
    while (counted != counts.end() && counted->slot < id) ++counted;
    // A slot that has left the log meanwhile has no counts.
    if (counted == counts.end() || counted->slot != id) continue;
    slot.set_open_page_count(static_cast<int64_t>(counted->counts.open));
  }
  return grpc::Status::OK;
}

grpc::Status DirtyLogServiceImpl::AcquireDirtyLog(
    CallContext* context, const v1::AcquireDirtyLogRequest* request,
    v1::AcquireDirtyLogResponse* response) {
  return Mutate(
      state_, *context, "AcquireDirtyLog", WhileDraining::kAllow, *request,
      response, [&]() -> absl::StatusOr<v1::AcquireDirtyLogResponse> {
        const absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
        if (!vm.ok()) return vm.status();
        return Acquire(*request, **vm);
      });
}

grpc::Status DirtyLogServiceImpl::SealDirtyLog(
    CallContext* context, const v1::SealDirtyLogRequest* request,
    v1::SealDirtyLogResponse* response) {
  return Mutate(
      state_, *context, "SealDirtyLog", WhileDraining::kAllow, *request,
      response, [&]() -> absl::StatusOr<v1::SealDirtyLogResponse> {
        const absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
        if (!vm.ok()) return vm.status();
        const absl::StatusOr<mmu::LogCall> call = ToLogCall(*request);
        if (!call.ok()) return call.status();
        const absl::StatusOr<SealedLog> sealed =
            Seal(**vm, *call, ToEpoch(request->acknowledged_epoch()));
        if (!sealed.ok()) return sealed.status();
        return ToResponse(*sealed);
      });
}

absl::StatusOr<MessageSource<v1::ReadDirtyPagesResponse>>
DirtyLogServiceImpl::ReadDirtyPages(CallContext* context,
                                    const v1::ReadDirtyPagesRequest* request) {
  state_.call_log.NoteRequest(context->id(), *request);
  absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
  if (!vm.ok()) return vm.status();
  if (absl::Status status = CheckStream(*context, state_, **vm); !status.ok()) {
    return status;
  }
  const absl::StatusOr<DirtyPagesCall> read = ToDirtyPagesCall(*request);
  if (!read.ok()) return read.status();
  if (absl::Status status = CheckSlots(**vm, read->pages.slots); !status.ok()) {
    return status;
  }
  const absl::StatusOr<DirtyLogPlan> plan = PlanDirtyLog(read->pages, **vm);
  if (!plan.ok()) return plan.status();
  auto pages = std::make_shared<PageStream>(*std::move(vm), *plan, read->form);
  return MessageSource<v1::ReadDirtyPagesResponse>(
      [this, context,
       pages](v1::ReadDirtyPagesResponse* message) -> absl::StatusOr<bool> {
        return pages->Next(
            [&] { return CheckStream(*context, state_, pages->vm()); },
            message);
      });
}

grpc::Status DirtyLogServiceImpl::ClearDirtyLog(
    CallContext* context, const v1::ClearDirtyLogRequest* request,
    v1::ClearDirtyLogResponse* response) {
  return Mutate(
      state_, *context, "ClearDirtyLog", WhileDraining::kAllow, *request,
      response, [&]() -> absl::StatusOr<v1::ClearDirtyLogResponse> {
        const absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
        if (!vm.ok()) return vm.status();
        const absl::StatusOr<mmu::LogCall> call = ToLogCall(*request);
        if (!call.ok()) return call.status();
        const absl::StatusOr<NamedPages> pages =
            FindPages(request->pages(), **vm);
        if (!pages.ok()) return pages.status();
        const absl::StatusOr<ClearedPages> cleared =
            Clear(**vm, *call, ToEpoch(request->epoch()), *pages,
                  {.keep_going = [&] { return CheckVmCall(*context, **vm); },
                   .part_done =
                       [&] { state_.call_log.NotePartDone(context->id()); }});
        if (!cleared.ok()) return InPagesFields(cleared.status());
        return ToResponse(*cleared);
      });
}

grpc::Status DirtyLogServiceImpl::AcknowledgePages(
    CallContext* context, const v1::AcknowledgePagesRequest* request,
    v1::AcknowledgePagesResponse* response) {
  return Mutate(
      state_, *context, "AcknowledgePages", WhileDraining::kAllow, *request,
      response, [&]() -> absl::StatusOr<v1::AcknowledgePagesResponse> {
        const absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
        if (!vm.ok()) return vm.status();
        const absl::StatusOr<mmu::LogCall> call = ToLogCall(*request);
        if (!call.ok()) return call.status();
        absl::optional<NamedPages> pages;
        if (request->has_pages()) {
          absl::StatusOr<NamedPages> named = FindPages(request->pages(), **vm);
          if (!named.ok()) return named.status();
          pages = *std::move(named);
        }
        const absl::StatusOr<mmu::AcknowledgeResult> result =
            Acknowledge(**vm, *call, ToEpoch(request->epoch()),
                        pages.has_value() ? &*pages : nullptr);
        if (!result.ok()) return InPagesFields(result.status());
        return ToResponse(*result);
      });
}

grpc::Status DirtyLogServiceImpl::StopDirtyLog(
    CallContext* context, const v1::StopDirtyLogRequest* request,
    v1::StopDirtyLogResponse* response) {
  return Mutate(
      state_, *context, "StopDirtyLog", WhileDraining::kAllow, *request,
      response, [&]() -> absl::StatusOr<v1::StopDirtyLogResponse> {
        const absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
        if (!vm.ok()) return vm.status();
        // A deletion must not count the discarded pages as well.
        const absl::StatusOr<VmUse> change = state_.vms.ForChange(*vm);
        if (!change.ok()) return change.status();
        const absl::StatusOr<mmu::DirtyLogStop> stop = ToStop(*request);
        if (!stop.ok()) return stop.status();
        const absl::StatusOr<StoppedDirtyLog> stopped =
            mmud::StopDirtyLog(*stop, **vm);
        if (!stopped.ok()) return stopped.status();
        return ToResponse(*stopped);
      });
}

std::unique_ptr<
    Conversation<v1::HarvestDirtyLogRequest, v1::HarvestDirtyLogResponse>>
DirtyLogServiceImpl::HarvestDirtyLog(CallContext* context,
                                     TakeStreamPlace take) {
  return std::make_unique<HarvestStream>(state_, *context, std::move(take));
}

grpc::Status DirtyLogServiceImpl::GetDirtyRate(
    CallContext*, const v1::GetDirtyRateRequest* request,
    v1::GetDirtyRateResponse* response) {
  absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
  if (!vm.ok()) return ToGrpcStatus(vm.status());
  if (absl::Status status = GetLog(**vm).status(); !status.ok()) {
    return ToGrpcStatus(status);
  }
  absl::StatusOr<std::vector<absl::Duration>> windows =
      ToWindows(request->windows());
  if (!windows.ok()) return ToGrpcStatus(windows.status());
  const bool asked = !windows->empty();
  if (!asked) *windows = UsualWindows();
  const VcpuRates vcpus =
      request->per_vcpu() ? VcpuRates::kShow : VcpuRates::kLeaveOut;
  const DirtySample now = (*vm)->SampleDirty(mmu::MonotonicTime::Now());
  for (const absl::Duration window : *windows) {
    const absl::StatusOr<DirtyRateResult> rate =
        (*vm)->dirty_rate().Rate(now, window);
    if (rate.ok()) {
      *response->add_rates() = ToProto(window, *rate, vcpus);
    } else if (asked || response->rates_size() == 0) {
      // Default windows that reach too far back are left out, but at least one
      // window must remain.
      return ToGrpcStatus(rate.status());
    }
  }
  return grpc::Status::OK;
}

}  // namespace mmud
