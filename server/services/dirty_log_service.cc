#include "server/services/dirty_log_service.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_config.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/rpc/call_context.h"
#include "server/services/call.h"
#include "server/services/convert.h"
#include "server/services/dirty_log_codec.h"
#include "server/services/dirty_log_control.h"
#include "server/services/dirty_log_stream.h"
#include "server/services/vm_convert.h"

namespace mmud {
namespace {

// Pages that one step of a clear covers: 256 MiB of guest memory.
constexpr uint64_t kClearStepPages = 1 << 16;
constexpr int kMaxWindows = 16;

// What the header says about an epoch.
struct EpochFacts {
  uint64_t epoch = 0;
  uint64_t dirty_pages = 0;
  uint64_t merged_pages = 0;
};

// Seals, at most once per request_id. The answer is kept as "epoch dirty
// merged". The facts are those of now: pages may have been cleared since a
// first call of the same id.
absl::StatusOr<EpochFacts> Seal(DaemonState& state, const CallContext& context,
                                const v1::GetDirtyLogRequest& request,
                                ManagedVm& vm, mmu::MmuCost* cost) {
  const absl::StatusOr<std::string> answer = state.request_ids.Run(
      request.request_id(), Fingerprint("GetDirtyLog", request),
      [&context] { return CheckCaller(context); },
      [&]() -> absl::StatusOr<std::string> {
        absl::StatusOr<mmu::SealResult> sealed =
            vm.vm().SealDirtyLog(static_cast<uint32_t>(request.slot()), cost);
        if (!sealed.ok()) return sealed.status();
        state.call_log.NotePartDone(context.id());
        return absl::StrCat(sealed->epoch, " ", sealed->dirty_page_count, " ",
                            sealed->merged_page_count);
      });
  if (!answer.ok()) return answer.status();
  EpochFacts facts;
  const std::vector<std::string> parts = absl::StrSplit(*answer, ' ');
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &facts.epoch) ||
      !absl::SimpleAtoi(parts[1], &facts.dirty_pages) ||
      !absl::SimpleAtoi(parts[2], &facts.merged_pages)) {
    return absl::InternalError("a remembered seal is unreadable");
  }
  const auto slot = static_cast<uint32_t>(request.slot());
  const absl::optional<mmu::DirtyLogInfo> log = vm.vm().FindDirtyLog(slot);
  if (!log.has_value()) return DirtyLogOff(vm, slot);
  // Sealed anew since: mmu_core says so.
  if (absl::Status status =
          vm.vm().ReadDirtyLog(slot, facts.epoch, 0, absl::Span<uint64_t>());
      !status.ok()) {
    return status;
  }
  if (log->unacked_page_count != facts.dirty_pages) {
    facts.dirty_pages = log->unacked_page_count;
    facts.merged_pages = 0;  // nobody knows which of them are left
  }
  return facts;
}

absl::Status BadClear(absl::StatusCode code, const char* reason,
                      const char* field, absl::string_view message) {
  mmu::ErrorDetail detail;
  detail.reason = reason;
  detail.field = field;
  return mmu::MakeError(code, detail, std::string(message));
}

// The range of a clear in pages from the slot's start.
struct ClearRange {
  uint64_t first_page = 0;
  uint64_t pages = 0;
};

absl::StatusOr<ClearRange> ToClearRange(const v1::ClearDirtyLogRequest& request,
                                        const mmu::MemslotConfig& slot) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const int64_t start = request.start_gpa_bytes();
  const int64_t size = request.size_bytes();
  if (start < 0 || size < 0) {
    return BadClear(
        kInvalid, start < 0 ? "INVALID_RANGE" : "INVALID_SIZE",
        start < 0 ? "start_gpa_bytes" : "size_bytes",
        absl::StrCat("start_gpa_bytes is ", start, " and size_bytes is ", size,
                     "; neither must be negative"));
  }
  const uint64_t slot_start = slot.gpa.value();
  const auto from = static_cast<uint64_t>(start);
  const auto bytes = static_cast<uint64_t>(size);
  if (from < slot_start || from - slot_start > slot.size_bytes ||
      bytes > slot.size_bytes - (from - slot_start)) {
    return BadClear(absl::StatusCode::kOutOfRange, "GPA_OUT_OF_RANGE",
                    "start_gpa_bytes",
                    absl::StrCat("the range of ", bytes, " bytes from ", from,
                                 " is not within the slot of ", slot.size_bytes,
                                 " bytes from ", slot_start));
  }
  constexpr uint64_t kUnit = 64 * mmu::kPageSize;
  const uint64_t offset = from - slot_start;
  if (offset % kUnit != 0 ||
      (bytes % kUnit != 0 && offset + bytes != slot.size_bytes)) {
    return BadClear(
        kInvalid, "UNALIGNED_CLEAR",
        offset % kUnit != 0 ? "start_gpa_bytes" : "size_bytes",
        absl::StrCat("start_gpa_bytes is ", from, " and size_bytes is ", bytes,
                     "; the range must begin on a multiple of 64 pages from "
                     "the slot's start, and end on one or at the slot's "
                     "end"));
  }
  return ClearRange{offset >> mmu::kPageShift, bytes >> mmu::kPageShift};
}

// Clears step by step; a caller that leaves in between has cleared a part,
// which it can safely ask for again.
absl::Status ClearSteps(DaemonState& state, const CallContext& context,
                        const v1::ClearDirtyLogRequest& request,
                        const ClearRange& range,
                        const std::vector<uint64_t>& mask, ManagedVm& vm,
                        mmu::ClearResult* sum, mmu::MmuCost* cost) {
  uint64_t done = 0;
  do {
    if (absl::Status status = CheckVmCall(context, vm); !status.ok()) {
      return status;
    }
    const uint64_t pages = std::min(kClearStepPages, range.pages - done);
    const auto words =
        absl::MakeConstSpan(mask).subspan(done / 64, (pages + 63) / 64);
    absl::StatusOr<mmu::ClearResult> result =
        vm.vm().ClearDirtyLog(static_cast<uint32_t>(request.slot()),
                              static_cast<uint64_t>(request.epoch()),
                              range.first_page + done, pages, words, cost);
    if (!result.ok()) return result.status();
    state.call_log.NotePartDone(context.id());
    sum->cleared_page_count += result->cleared_page_count;
    sum->already_clean_page_count += result->already_clean_page_count;
    sum->split_2m_count += result->split_2m_count;
    sum->split_1g_count += result->split_1g_count;
    done += pages;
  } while (done < range.pages);
  return absl::OkStatus();
}

absl::StatusOr<v1::ClearDirtyLogResponse> Clear(
    DaemonState& state, const CallContext& context,
    const v1::ClearDirtyLogRequest& request, ManagedVm& vm) {
  absl::StatusOr<uint32_t> slot = ToSlot(request.slot(), "slot");
  if (!slot.ok()) return slot.status();
  const absl::optional<mmu::MemslotInfo> info = vm.FindSlot(*slot);
  if (!info.has_value()) {
    return MemslotNotFound(MakeMemslotName(vm.name(), *slot));
  }
  const absl::optional<mmu::DirtyLogInfo> log = vm.vm().FindDirtyLog(*slot);
  if (!log.has_value()) return DirtyLogOff(vm, *slot);
  if (request.epoch() <= 0 ||
      static_cast<uint64_t>(request.epoch()) != log->sealed_epoch) {
    return BadClear(
        absl::StatusCode::kAborted, "EPOCH_MISMATCH", "epoch",
        absl::StrCat("epoch is ", request.epoch(), "; ",
                     log->sealed_epoch == 0
                         ? "no epoch of this slot is sealed yet: seal one with "
                           "GetDirtyLog, and clear what it lists"
                         : absl::StrCat("the newest sealed epoch is ",
                                        log->sealed_epoch)));
  }
  absl::StatusOr<ClearRange> range = ToClearRange(request, info->config);
  if (!range.ok()) return range.status();
  absl::StatusOr<std::vector<uint64_t>> mask =
      DecodeClearPages(request, range->pages);
  if (!mask.ok()) return mask.status();
  vm.TouchDirtyLog(mmu::MonotonicTime::Now());
  mmu::ClearResult sum;
  mmu::MmuCost cost;
  if (range->pages > 0) {
    absl::Status status =
        ClearSteps(state, context, request, *range, *mask, vm, &sum, &cost);
    if (!status.ok()) return status;
  }
  v1::ClearDirtyLogResponse response;
  response.set_cleared_page_count(static_cast<int64_t>(sum.cleared_page_count));
  response.set_already_clean_page_count(
      static_cast<int64_t>(sum.already_clean_page_count));
  response.mutable_splits()->set_split_2m_count(
      static_cast<int64_t>(sum.split_2m_count));
  response.mutable_splits()->set_split_1g_count(
      static_cast<int64_t>(sum.split_1g_count));
  if (const absl::optional<mmu::DirtyLogInfo> now =
          vm.vm().FindDirtyLog(*slot)) {
    response.set_unacked_page_count(
        static_cast<int64_t>(now->unacked_page_count));
  }
  *response.mutable_cost() = ToProto(cost);
  return response;
}

}  // namespace

DirtyLogServiceImpl::DirtyLogServiceImpl(DaemonState& state)
    : RpcService("mmud.v1.DirtyLogService", state.calls), state_(state) {
  Paced("StartDirtyLog", this, &DirtyLogServiceImpl::StartDirtyLog);
  Long("StopDirtyLog", this, &DirtyLogServiceImpl::StopDirtyLog);
  Stream("GetDirtyLog", this, &DirtyLogServiceImpl::GetDirtyLog);
  Long("ClearDirtyLog", this, &DirtyLogServiceImpl::ClearDirtyLog);
  Short("GetDirtyRate", this, &DirtyLogServiceImpl::GetDirtyRate);
  CheckComplete();
}

grpc::Status DirtyLogServiceImpl::StartDirtyLog(
    CallContext* context, const v1::StartDirtyLogRequest* request,
    v1::StartDirtyLogResponse* response) {
  return Mutate(
      state_, *context, "StartDirtyLog", WhileDraining::kRefuse, *request,
      response, [&]() -> absl::StatusOr<v1::StartDirtyLogResponse> {
        absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
        if (!vm.ok()) return vm.status();
        return mmud::StartDirtyLog(
            *request, **vm,
            {.timer = state_.calls.timer,
             .keep_going = [&] { return CheckStream(*context, state_, **vm); },
             .part_done =
                 [&] { state_.call_log.NotePartDone(context->id()); }});
      });
}

grpc::Status DirtyLogServiceImpl::StopDirtyLog(
    CallContext* context, const v1::StopDirtyLogRequest* request,
    v1::StopDirtyLogResponse* response) {
  return Mutate(
      state_, *context, "StopDirtyLog", WhileDraining::kAllow, *request,
      response, [&]() -> absl::StatusOr<v1::StopDirtyLogResponse> {
        absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
        if (!vm.ok()) return vm.status();
        return mmud::StopDirtyLog(*request, **vm);
      });
}

absl::StatusOr<MessageSource<v1::GetDirtyLogResponse>>
DirtyLogServiceImpl::GetDirtyLog(CallContext* context,
                                 const v1::GetDirtyLogRequest* request) {
  state_.call_log.NoteRequest(context->id(), *request);
  absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
  if (!vm.ok()) return vm.status();
  if (absl::Status status = CheckStream(*context, state_, **vm); !status.ok()) {
    return status;
  }
  const absl::StatusOr<DirtyLogPlan> plan = PlanDirtyLog(*request, **vm);
  if (!plan.ok()) return plan.status();
  const absl::optional<mmu::DirtyLogInfo> log =
      (*vm)->vm().FindDirtyLog(plan->slot);
  if (!log.has_value()) return DirtyLogOff(**vm, plan->slot);

  mmu::MmuCost cost;
  EpochFacts facts;
  uint64_t read_epoch = 0;
  if (plan->mode == v1::GET_DIRTY_LOG_MODE_PEEK) {
    facts.epoch = log->open_epoch;
  } else if (plan->epoch != 0) {
    // Asks mmu_core whether that epoch can still be read.
    absl::Status status = (*vm)->vm().ReadDirtyLog(plan->slot, plan->epoch, 0,
                                                   absl::Span<uint64_t>());
    if (!status.ok()) return status;
    facts.epoch = read_epoch = plan->epoch;
    facts.dirty_pages = log->unacked_page_count;
  } else {
    absl::StatusOr<EpochFacts> sealed =
        Seal(state_, *context, *request, **vm, &cost);
    if (!sealed.ok()) return sealed.status();
    facts = *sealed;
    read_epoch = facts.epoch;
  }
  (*vm)->TouchDirtyLog(mmu::MonotonicTime::Now());

  v1::DirtyLogHeader header;
  header.set_epoch(static_cast<int64_t>(facts.epoch));
  header.set_dirty_page_count(static_cast<int64_t>(facts.dirty_pages));
  header.set_merged_page_count(static_cast<int64_t>(facts.merged_pages));
  header.mutable_coverage()->set_gpa_bytes(static_cast<int64_t>(
      (plan->slot_start + (plan->first_page << mmu::kPageShift)).value()));
  header.mutable_coverage()->set_size_bytes(static_cast<int64_t>(
      (plan->end_page - plan->first_page) << mmu::kPageShift));
  auto pages = std::make_shared<DirtyPageStream>(
      *plan, read_epoch, std::move(header), *std::move(vm), cost);
  return MessageSource<v1::GetDirtyLogResponse>(
      [this, context,
       pages](v1::GetDirtyLogResponse* message) -> absl::StatusOr<bool> {
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
        absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
        if (!vm.ok()) return vm.status();
        return Clear(state_, *context, *request, **vm);
      });
}

grpc::Status DirtyLogServiceImpl::GetDirtyRate(
    CallContext*, const v1::GetDirtyRateRequest* request,
    v1::GetDirtyRateResponse* response) {
  absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
  if (!vm.ok()) return ToGrpcStatus(vm.status());
  if (!(*vm)->dirty_log_settings().has_value()) {
    return ToGrpcStatus(WithResource(
        ApiError(absl::StatusCode::kFailedPrecondition, "DIRTY_LOG_OFF",
                 absl::StrCat(request->vm(), " does not log")),
        "mmud.v1.Vm", request->vm()));
  }
  if (request->windows_size() > kMaxWindows) {
    return ToGrpcStatus(
        InvalidField("INVALID_WINDOW", "windows",
                     absl::StrCat("windows has ", request->windows_size(),
                                  " entries; it may have ", kMaxWindows)));
  }
  std::vector<absl::Duration> windows;
  for (int i = 0; i < request->windows_size(); ++i) {
    absl::Duration window;
    if (!FromProto(request->windows(i), &window) ||
        window < absl::Milliseconds(100) || window > absl::Minutes(10)) {
      return ToGrpcStatus(
          WrongValue("INVALID_WINDOW", absl::StrCat("windows[", i, "]"),
                     Show(request->windows(i)), "from 100 ms to 10 min"));
    }
    windows.push_back(window);
  }
  const bool asked = !windows.empty();
  if (!asked) windows = {absl::Seconds(1), absl::Seconds(10), absl::Minutes(1)};
  const DirtySample now = (*vm)->SampleDirty(mmu::MonotonicTime::Now());
  for (const absl::Duration window : windows) {
    const absl::StatusOr<DirtyRateResult> rate =
        (*vm)->dirty_rate().Rate(now, window);
    // Of the usual windows those are left out that reach too far back, but
    // not all of them.
    if (!rate.ok() && (asked || response->rates_size() == 0)) {
      return ToGrpcStatus(rate.status());
    }
    if (!rate.ok()) continue;
    v1::DirtyRate* proto = response->add_rates();
    *proto->mutable_window() = ToProto(window);
    *proto->mutable_observed() = ToProto(rate->observed);
    proto->set_unique_pages_per_second(rate->vm.pages_per_second);
    proto->set_write_faults_per_second(rate->vm.write_faults_per_second);
    proto->set_bytes_per_second(rate->vm.pages_per_second * mmu::kPageSize);
    proto->set_ring_full_ratio(rate->vm.ring_full_ratio);
    if (!request->per_vcpu()) continue;
    for (const DirtyRates& rates : rate->vcpus) {
      v1::VcpuDirtyRate* vcpu = proto->add_vcpus();
      vcpu->set_vcpu(proto->vcpus_size() - 1);
      vcpu->set_unique_pages_per_second(rates.pages_per_second);
      vcpu->set_write_faults_per_second(rates.write_faults_per_second);
      vcpu->set_ring_full_ratio(rates.ring_full_ratio);
    }
  }
  return grpc::Status::OK;
}

}  // namespace mmud
