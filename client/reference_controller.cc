#include "client/reference_controller.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/guest_comparison.h"
#include "client/guest_copy.h"
#include "client/heat_watch.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/operations_client.h"
#include "client/mmu_client/owner_token.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/time_conversion.h"
#include "client/send_order.h"
#include "client/text/units.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "mmu_core/base/clock.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/error_reasons.pb.h"
#include "mmud/v1/split_service.pb.h"

namespace mmud::client {
namespace {

using google::longrunning::Operation;

constexpr absl::Duration kPollInterval = absl::Milliseconds(100);
// Longer than any single step that needs a paused guest.
constexpr absl::Duration kMaxPause = absl::Minutes(10);

// An order that is older is made anew, but not so often that reading it takes
// more than a tenth of the time.
constexpr absl::Duration kMinHeatLifetime = absl::Milliseconds(400);
constexpr int kHeatLifetimeInReads = 10;
// The ager needs much less, unless the machine is overloaded.
constexpr absl::Duration kMaxLearning = absl::Seconds(5);

// Maximum contents in transit to the destination.
constexpr int64_t kLinkBytes = 8 << 20;

// Passes pages on and reports their number.
class CountingSink final : public PageSink {
 public:
  // `done_bytes` of `total_bytes` were passed on before. `before_each` is
  // called before pages are handed on; its error ends the read.
  CountingSink(PageSink* next, int64_t done_bytes, int64_t total_bytes,
               ControllerObserver* observer,
               std::function<absl::Status()> before_each)
      : next_(next),
        total_bytes_(total_bytes),
        observer_(observer),
        before_each_(std::move(before_each)),
        done_bytes_(done_bytes) {}

  absl::Status OnData(int64_t gpa_bytes, absl::string_view data) override {
    if (absl::Status status = before_each_(); !status.ok()) return status;
    Count(static_cast<int64_t>(data.size()));
    return next_->OnData(gpa_bytes, data);
  }
  absl::Status OnZeros(GpaRange range) override {
    if (absl::Status status = before_each_(); !status.ok()) return status;
    Count(range.size_bytes);
    return next_->OnZeros(range);
  }

 private:
  void Count(int64_t bytes) {
    done_bytes_ += bytes;
    observer_->OnProgress(
        static_cast<double>(done_bytes_) / static_cast<double>(total_bytes_),
        absl::StrCat(FormatBytes(done_bytes_), " of ",
                     FormatBytes(total_bytes_)));
  }

  PageSink* const next_;
  const int64_t total_bytes_;
  ControllerObserver* const observer_;
  const std::function<absl::Status()> before_each_;
  int64_t done_bytes_;
};

std::vector<GpaRange> RangesOf(const std::vector<SlotRange>& slots) {
  std::vector<GpaRange> ranges;
  for (const SlotRange& slot : slots) ranges.push_back(slot.range);
  return ranges;
}

// The name of the field that is set in Vm.mmu; a daemon always sets one.
std::string MmuName(const v1::Vm& vm) {
  const google::protobuf::FieldDescriptor* chosen =
      vm.GetReflection()->GetOneofFieldDescriptor(
          vm, vm.GetDescriptor()->FindOneofByName("mmu"));
  return chosen == nullptr ? "" : chosen->name();
}

absl::Duration Sum(const v1::ThrottledTime& time) {
  return FromProto(time.rate()) + FromProto(time.lock_hold()) +
         FromProto(time.flush()) + FromProto(time.stall()) +
         FromProto(time.pause());
}

}  // namespace

ReferenceController::ReferenceController(Client* client,
                                         ControllerOptions options,
                                         ControllerObserver* observer)
    : client_(client),
      options_(std::move(options)),
      observer_(observer),
      vm_(absl::StrCat("vms/", options_.vm_id)),
      reader_(&client->memory(), vm_, {}),
      heat_watch_(&client->aging(), vm_) {}

absl::StatusOr<MigrationReport> ReferenceController::Run() {
  return RunSteps(
      {&ReferenceController::CreateGuest, &ReferenceController::Populate,
       &ReferenceController::StartProgram, &ReferenceController::Split,
       &ReferenceController::StartLog, &ReferenceController::CopyBaseline,
       &ReferenceController::RunRounds, &ReferenceController::StopAndCopyRest,
       &ReferenceController::StopLog, &ReferenceController::Compare});
}

absl::StatusOr<MigrationReport> ReferenceController::TakeOver() {
  return RunSteps(
      {&ReferenceController::FindGuest, &ReferenceController::TakeLog,
       &ReferenceController::RunRounds, &ReferenceController::StopAndCopyRest,
       &ReferenceController::StopLog, &ReferenceController::Compare});
}

absl::StatusOr<MigrationReport> ReferenceController::RunSteps(
    const std::vector<Step>& steps) {
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  for (const Step step : steps) {
    if (absl::Status status = (this->*step)(); !status.ok()) {
      heat_watch_.Stop().IgnoreError();  // the first error is more useful
      return status;
    }
  }
  report_.total_time = mmu::MonotonicTime::Now() - start;
  return report_;
}

absl::Status ReferenceController::CreateGuest() {
  observer_->OnStep(absl::StrCat("making ", vm_));
  v1::CreateVmRequest request;
  request.set_vm_id(options_.vm_id);
  *request.mutable_vm() = options_.vm;
  request.mutable_vm()->set_vcpu_count(options_.vcpu_count);
  for (const v1::Memslot& memslot : options_.memslots) {
    *request.mutable_vm()->add_memslots() = memslot;
  }
  const auto response = client_->vms().CreateVm(request);
  if (!response.ok()) return response.status();
  created_ = true;
  return SetGuest(response->vm());
}

absl::Status ReferenceController::FindGuest() {
  observer_->OnStep(absl::StrCat("finding ", vm_, " and its copy"));
  const absl::StatusOr<v1::Vm> guest = GetGuest();
  if (!guest.ok()) return guest.status();
  StartHeatWatch();
  return SetGuest(*guest);
}

absl::Status ReferenceController::SetGuest(const v1::Vm& guest) {
  for (const v1::Memslot& slot : guest.memslots()) {
    slots_.push_back({slot.slot(), {slot.gpa_bytes(), slot.size_bytes()}});
    if (slot.readonly()) unlogged_.push_back(slots_.back().range);
  }
  absl::StatusOr<std::unique_ptr<GuestCopy>> copy =
      options_.destination.empty()
          ? GuestCopy::Create(RangesOf(slots_))
          : GuestCopy::OpenFile(RangesOf(slots_), options_.destination);
  if (!copy.ok()) return copy.status();
  copy_ = *std::move(copy);
  link_ = std::make_unique<PageQueue>(copy_.get(), kLinkBytes);
  sent_.emplace(RangesOf(slots_));
  report_.order = ToString(options_.order);
  report_.vm = vm_;
  report_.mmu = MmuName(guest);
  report_.trace = options_.trace_name;
  report_.memory_bytes = copy_->size_bytes();
  report_.vcpu_count = guest.vcpu_count();
  report_.bandwidth_bytes_per_second = options_.bandwidth_bytes_per_second;
  report_.downtime_target = options_.downtime_target;
  return absl::OkStatus();
}

absl::Status ReferenceController::Populate() {
  observer_->OnStep(absl::StrCat("the guest writes to all of its ",
                                 FormatBytes(report_.memory_bytes), " once"));
  lab::v1::StartWorkloadRequest request;
  request.set_vm(vm_);
  lab::v1::Workload& workload = *request.mutable_workload();
  workload.set_vcpu_count(1);
  workload.mutable_pattern()->set_write_fraction(1);
  workload.mutable_pattern()->mutable_sequential()->set_stride_bytes(
      options_.populate_stride_bytes);
  workload.set_access_count(report_.memory_bytes /
                            options_.populate_stride_bytes);
  const auto started = client_->workloads().StartWorkload(request);
  if (!started.ok()) return started.status();
  const absl::StatusOr<lab::v1::Workload> ended = client_->workloads().AwaitEnd(
      started->workload().name(), [this](const lab::v1::Workload& state) {
        const int64_t writes = state.statistics().access_count();
        observer_->OnProgress(
            static_cast<double>(writes) /
                static_cast<double>(state.total_access_count()),
            absl::StrCat(FormatCount(writes), " writes"));
        return absl::OkStatus();
      });
  if (!ended.ok()) return ended.status();
  return FromRpcStatus(ended->error());
}

absl::Status ReferenceController::StartProgram() {
  observer_->OnStep(absl::StrCat(options_.vcpu_count, " vCPUs run ",
                                 options_.trace_name, " again and again"));
  lab::v1::StartWorkloadRequest request;
  request.set_vm(vm_);
  lab::v1::Workload& workload = *request.mutable_workload();
  if (options_.program.has_value()) {
    workload = *options_.program;
  } else {
    workload.mutable_trace()->set_trace_name(options_.trace_name);
  }
  workload.set_seed(options_.seed);
  workload.set_max_accesses_per_second(options_.accesses_per_second_per_vcpu);
  // More repetitions than any run needs, since the workload is stopped.
  if (workload.has_trace()) {
    workload.mutable_trace()->set_repeat_count(1'000'000);
  }
  const auto started = client_->workloads().StartWorkload(request);
  if (!started.ok()) return started.status();
  workload_ = started->workload().name();
  StartHeatWatch();
  return absl::OkStatus();
}

void ReferenceController::StartHeatWatch() {
  if (options_.order != SendOrder::kColdestFirst) return;
  NoteHeatProblem(heat_watch_.Start());
}

void ReferenceController::NoteHeatProblem(const absl::Status& status) {
  if (!status.ok()) report_.heat_problem = std::string(status.message());
}

absl::Status ReferenceController::Split() {
  absl::StatusOr<v1::Vm> guest = GetGuest();
  if (!guest.ok()) return guest.status();
  report_.pages_before = guest->mapped_pages();
  report_.pages_after_split = guest->mapped_pages();
  if (options_.split == SplitWhen::kByClear) return absl::OkStatus();

  observer_->OnStep("splitting huge mappings, throttled");
  v1::SplitHugePagesRequest request;
  request.set_vm(vm_);
  *request.mutable_throttle() = options_.split_throttle;
  absl::StatusOr<Operation> operation =
      client_->splits().SplitHugePages(request);
  if (!operation.ok()) return operation.status();
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  operation = client_->operations().Await(
      operation->name(), kPollInterval, [this](const Operation& state) {
        const auto metadata = OperationMetadata<v1::SplitMetadata>(state);
        if (!metadata.ok()) return metadata.status();
        report_.split_throttled = Sum(metadata->throttled());
        report_.split_cost = metadata->cost();
        const double total =
            static_cast<double>(std::max<int64_t>(metadata->total_bytes(), 1));
        observer_->OnProgress(
            static_cast<double>(metadata->done_bytes()) / total,
            absl::StrCat(
                FormatBytes(metadata->done_bytes()), ", throttled for ",
                FormatTime(report_.split_throttled),
                metadata->has_remaining_time()
                    ? absl::StrCat(
                          ", ",
                          FormatTime(FromProto(metadata->remaining_time())),
                          " left")
                    : ""));
        return absl::OkStatus();
      });
  if (!operation.ok()) return operation.status();
  const auto response =
      OperationResponse<v1::SplitHugePagesResponse>(*operation);
  if (!response.ok()) return response.status();
  report_.split_time = mmu::MonotonicTime::Now() - start;
  report_.splits = response->splits();
  report_.split_cost = response->cost();
  guest = GetGuest();
  if (!guest.ok()) return guest.status();
  report_.pages_after_split = guest->mapped_pages();
  return absl::OkStatus();
}

absl::Status ReferenceController::StartLog() {
  observer_->OnStep("switching the dirty log on, with every page dirty");
  v1::StartDirtyLogRequest request;
  request.set_vm(vm_);
  request.set_owner(options_.owner);
  // The token is made and stored before the call, so a retry uses the same
  // token, and so does the next controller if this one never gets the answer.
  // The next controller starts the log with the same token, since this
  // controller's start may still be running.
  if (copy_->owner_tokens().empty()) {
    if (absl::Status status = copy_->KeepOwnerToken(NewOwnerToken(), "");
        !status.ok()) {
      return status;
    }
  }
  request.set_owner_token(copy_->owner_tokens().front());
  *request.mutable_lease() = ToProto(options_.lease);
  // All pages are dirty, so the first harvest is the baseline, and the next
  // owner finds the missing pages of the baseline in the log. Huge mappings
  // that the guest made after the split are split by the clear that reaches
  // them.
  request.set_initially_set(true);
  absl::StatusOr<Operation> operation =
      client_->dirty_log().StartDirtyLog(request);
  if (ReasonOf(operation.status()) == v1::DIRTY_LOG_ACTIVE) {
    return absl::FailedPreconditionError(absl::StrCat(
        vm_, " has a dirty log of ",
        ErrorInfoOf(operation.status()).metadata["owner"],
        ", which does not belong to ",
        options_.destination.empty() ? "this copy" : options_.destination,
        "; its delivered pages are at another destination: take it over with "
        "that destination and the .token file beside it, or stop it (mmuctl "
        "dirty-log stop --force)"));
  }
  if (!operation.ok()) return operation.status();
  if (!operation->done()) {
    operation = client_->operations().Await(
        operation->name(), kPollInterval,
        [](const Operation&) { return absl::OkStatus(); });
    if (!operation.ok()) return operation.status();
  }
  const auto response =
      OperationResponse<v1::StartDirtyLogResponse>(*operation);
  if (!response.ok()) return response.status();
  report_.start_cost = response->cost();
  SetLog(response->dirty_log(), request.owner_token());
  return StartAging();
}

absl::Status ReferenceController::TakeLog() {
  observer_->OnStep("taking the dirty log over");
  for (const std::string& token : copy_->owner_tokens()) {
    // Only the owner can seal, and a seal discards nothing.
    v1::SealDirtyLogRequest seal;
    seal.set_vm(vm_);
    seal.set_owner_token(token);
    const auto sealed = client_->dirty_log().SealDirtyLog(seal);
    if (sealed.ok()) return AcquireLog(sealed->log_id(), token);
    const v1::ErrorReason reason = ReasonOf(sealed.status());
    if (reason != v1::LOG_OWNED && reason != v1::LOG_FENCED &&
        reason != v1::DIRTY_LOG_OFF) {
      return sealed.status();
    }
  }
  // The other controller had not started the log, or had stopped it and died
  // before its report: repeat everything. Fails if there is a log.
  return StartLog();
}

absl::Status ReferenceController::AcquireLog(const std::string& log_id,
                                             const std::string& former) {
  v1::GetDirtyLogRequest get;
  get.set_vm(vm_);
  const auto log = client_->dirty_log().GetDirtyLog(get);
  if (!log.ok()) return log.status();
  report_.former_owner = log->dirty_log().owner();
  v1::AcquireDirtyLogRequest request;
  request.set_vm(vm_);
  request.set_owner(options_.owner);
  request.set_owner_token(NewOwnerToken());
  if (absl::Status status =
          copy_->KeepOwnerToken(request.owner_token(), former);
      !status.ok()) {
    return status;
  }
  request.set_log_id(log_id);
  *request.mutable_lease() = ToProto(options_.lease);
  // The destination is locked already, so the former owner cannot write to it.
  request.set_force(true);
  const auto response = client_->dirty_log().AcquireDirtyLog(request);
  if (!response.ok()) return response.status();
  SetLog(response->dirty_log(), request.owner_token());
  return StartAging();
}

void ReferenceController::SetLog(const v1::DirtyLog& log,
                                 std::string owner_token) {
  owner_token_ = std::move(owner_token);
  renewed_ = mmu::MonotonicTime::Now();
  log_started_ = renewed_;
  report_.log_id = log.log_id();
  report_.owner = log.owner();
  HarvesterOptions options;
  options.log_id = log.log_id();
  harvester_ = std::make_unique<Harvester>(&client_->dirty_log(), vm_,
                                           owner_token_, std::move(options));
}

absl::Status ReferenceController::RenewLease() {
  const mmu::MonotonicTime now = mmu::MonotonicTime::Now();
  if (now - renewed_ < options_.lease / 3) return absl::OkStatus();
  renewed_ = now;
  v1::AcquireDirtyLogRequest request;
  request.set_vm(vm_);
  request.set_owner(options_.owner);
  request.set_owner_token(owner_token_);
  request.set_log_id(report_.log_id);
  *request.mutable_lease() = ToProto(options_.lease);
  return client_->dirty_log().AcquireDirtyLog(request).status();
}

absl::Status ReferenceController::Wait(absl::Duration duration) {
  const mmu::MonotonicTime end = mmu::MonotonicTime::Now() + duration;
  while (true) {
    const absl::Duration left = end - mmu::MonotonicTime::Now();
    if (left <= absl::ZeroDuration()) return absl::OkStatus();
    absl::SleepFor(std::min(left, options_.lease / 6));
    if (absl::Status status = RenewLease(); !status.ok()) return status;
  }
}

absl::Status ReferenceController::CopyBaseline() {
  observer_->OnStep("baseline: copying all memory while the guest runs");
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  const absl::StatusOr<lab::v1::WorkloadStatistics> statistics = Statistics();
  if (!statistics.ok()) return statistics.status();
  last_stall_ = FromProto(statistics->stalls().total());
  MigrationRound round;
  round.name = "baseline";
  may_learn_ = options_.order == SendOrder::kColdestFirst;
  if (absl::Status status = HarvestRound(options_.order, &round);
      !status.ok()) {
    return status;
  }
  return FinishRound(start, &round);
}

absl::Status ReferenceController::RunRounds() {
  for (int number = 1; number <= options_.max_rounds; ++number) {
    observer_->OnStep(absl::StrCat("round ", number, ": seal, clear, copy"));
    const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
    MigrationRound round;
    round.name = absl::StrCat(number);
    if (absl::Status status = HarvestRound(options_.order, &round);
        !status.ok()) {
      return status;
    }
    if (absl::Status status = FinishRound(start, &round); !status.ok()) {
      return status;
    }
    const int64_t remaining_bytes =
        report_.rounds.back().remaining_page_count * kPageBytes;
    if (number >= options_.min_rounds &&
        TransferTime(remaining_bytes) <= options_.downtime_target) {
      report_.converged = true;
      break;
    }
  }
  return FinishAging();
}

absl::Status ReferenceController::StopAndCopyRest() {
  observer_->OnStep("stopping the guest, last round");
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  if (absl::Status status = KeepPaused(); !status.ok()) return status;
  MigrationRound round;
  round.name = "final";
  // The guest is stopped, so no page becomes dirty again, in whatever order.
  if (absl::Status status = HarvestRound(SendOrder::kAscending, &round);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = harvester_->Acknowledge(); !status.ok()) {
    return status;
  }
  report_.estimated_downtime = round.harvest_time + round.transfer_time;
  if (absl::Status status = FinishRound(start, &round); !status.ok()) {
    return status;
  }
  report_.migration_time = mmu::MonotonicTime::Now() - log_started_;
  report_.sent_page_count = sent_->sent_count();
  report_.resent_page_count = sent_->resent_count();
  const absl::StatusOr<lab::v1::WorkloadStatistics> statistics = Statistics();
  if (!statistics.ok()) return statistics.status();
  const lab::v1::FaultCounts& faults = statistics->faults();
  report_.access_count = statistics->access_count();
  report_.write_count = statistics->write_count();
  report_.fault_count = faults.fixed_count() + faults.fast_count() +
                        faults.spurious_count() + faults.emulate_count() +
                        faults.retry_count() + faults.error_count();
  return absl::OkStatus();
}

// The pause ends by itself if this controller dies. A living controller extends
// the pause before each step that needs a paused guest, and checks whether the
// guest ran since the first pause.
absl::Status ReferenceController::KeepPaused() {
  v1::PauseVcpusRequest request;
  request.set_vm(vm_);
  *request.mutable_max_duration() = ToProto(kMaxPause);
  const auto response = client_->vms().PauseVcpus(request);
  if (!response.ok()) return response.status();
  if (!paused_since_.has_value()) {
    paused_since_ = response->pause().since();
    return absl::OkStatus();
  }
  // `since` stays the same while the pause lasts.
  const google::protobuf::Timestamp& since = response->pause().since();
  if (since.seconds() == paused_since_->seconds() &&
      since.nanos() == paused_since_->nanos()) {
    return absl::OkStatus();
  }
  return absl::AbortedError(
      absl::StrCat(vm_,
                   " ran again after it was paused for the last round: the "
                   "copy no longer equals its memory"));
}

absl::Status ReferenceController::StopLog() {
  observer_->OnStep("switching the dirty log off, recovering huge pages");
  v1::StopDirtyLogRequest request;
  request.set_vm(vm_);
  request.set_owner_token(owner_token_);
  request.set_log_id(report_.log_id);
  request.set_recover_huge_pages(true);
  if (absl::Status status = KeepPaused(); !status.ok()) return status;
  if (absl::Status status = client_->dirty_log().StopDirtyLog(request).status();
      !status.ok()) {
    return status;
  }
  // The tokens do not apply to the next log.
  if (absl::Status status = copy_->DropOwnerTokens(); !status.ok()) {
    return status;
  }
  const absl::StatusOr<v1::Vm> guest = GetGuest();
  if (!guest.ok()) return guest.status();
  report_.pages_at_end = guest->mapped_pages();
  return absl::OkStatus();
}

absl::Status ReferenceController::Compare() {
  observer_->OnStep("comparing guest memory with the copy, byte by byte");
  GuestComparison comparison(copy_.get(), slots_);
  CountingSink sink(&comparison, 0, report_.memory_bytes, observer_,
                    [] { return absl::OkStatus(); });
  if (absl::Status status = reader_.Read(RangesOf(slots_), &sink).status();
      !status.ok()) {
    return status;
  }
  if (absl::Status status = KeepPaused(); !status.ok()) return status;
  report_.compared_bytes = comparison.compared_bytes();
  report_.equal = comparison.equal();
  report_.different_page_count = comparison.different_page_count();
  report_.differences = comparison.differences();
  return absl::OkStatus();
}

absl::Status ReferenceController::StartAging() {
  aged_ = mmu::MonotonicTime::Now();
  // The ager counts young pages already. To age them here as well would hide
  // them from it.
  if (options_.order == SendOrder::kColdestFirst) return absl::OkStatus();
  return Age(v1::AGING_MODE_TEST_AND_CLEAR).status();
}

absl::Status ReferenceController::FinishAging() {
  report_.young_since = mmu::MonotonicTime::Now() - aged_;
  if (options_.order == SendOrder::kColdestFirst) {
    const absl::StatusOr<YoungPages> pages =
        heat_watch_.CountYoung(report_.young_since);
    NoteHeatProblem(pages.status());
    if (pages.ok()) {
      report_.young_page_count = pages->young_count;
      report_.old_page_count = pages->old_count;
    }
    NoteHeatProblem(heat_watch_.Stop());
    return absl::OkStatus();
  }
  const auto response = Age(v1::AGING_MODE_TEST);
  if (!response.ok()) return response.status();
  report_.young_page_count = response->young_page_count();
  report_.old_page_count = response->old_page_count();
  return absl::OkStatus();
}

absl::StatusOr<v1::AgeRangeResponse> ReferenceController::Age(
    v1::AgingMode mode) {
  v1::AgeRangeRequest request;
  request.set_vm(vm_);
  request.set_mode(mode);
  // Some MMUs age under mmu_lock, and would be left out otherwise.
  request.set_lock_mode(v1::AGING_LOCK_MODE_MAY_LOCK);
  return client_->aging().AgeRange(request);
}

absl::Status ReferenceController::HarvestRound(SendOrder order,
                                               MigrationRound* round) {
  renewed_ = mmu::MonotonicTime::Now();
  const absl::StatusOr<Harvest> harvest = harvester_->RunInPieces(
      [this, order](int64_t epoch, const SlotBitmaps& left) {
        return NextPieceOf(order, epoch, left);
      },
      [this, round](const std::vector<GpaRange>& ranges) {
        return CopyPiece(ranges, round);
      });
  if (!harvest.ok()) return harvest.status();
  round->epoch = harvest->epoch;
  round->acknowledged_page_count = harvest->acknowledged_page_count;
  round->harvest_time += harvest->seal_time + harvest->clear_time;
  round->resume_count += harvest->resume_count;
  AddCost(harvest->cost, &round->cost);
  return harvester_->Delivered(harvest->epoch);
}

HarvestPiece ReferenceController::NextPieceOf(SendOrder order, int64_t epoch,
                                              const SlotBitmaps& left) {
  const bool is_first = std::exchange(plan_epoch_, epoch) != epoch;
  if (is_first) {
    plan_.clear();
    round_done_bytes_ = 0;
    round_bytes_ = TotalBytes(unlogged_);
    for (const auto& [slot, pages] : left) round_bytes_ += pages.size_bytes();
  }
  if (order == SendOrder::kAscending) return WholeHarvest(left);
  if (order == SendOrder::kColdestFirst) {
    if (!is_first) LearnHeat();
    // A round may be long, so its order is made anew now and then.
    if (mmu::MonotonicTime::Now() - heat_read_ > heat_lifetime_) {
      ReadHeat();
      plan_.clear();
    }
  }
  if (plan_.empty()) {
    PieceSizes sizes = options_.pieces;
    // The first piece is small, since the order is hardly known.
    if (may_learn_) sizes.share = std::numeric_limits<int64_t>::max();
    plan_ = ColdestFirst(left, heat_, sizes);
    std::reverse(plan_.begin(), plan_.end());
  }
  HarvestPiece piece = std::move(plan_.back());
  plan_.pop_back();
  return piece;
}

// A page whose translation is in a TLB looks old although it is in use: above
// all, the whole of a huge mapping that was split, since no TLB was flushed for
// the split. The clear of a piece flushes the TLBs. So this comes after the
// first piece.
void ReferenceController::LearnHeat() {
  if (!std::exchange(may_learn_, false)) return;
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  NoteHeatProblem(heat_watch_.AwaitTwoGenerations(
      std::min(kMaxLearning, options_.lease / 3)));
  report_.learning_time = mmu::MonotonicTime::Now() - start;
  ReadHeat();
  plan_.clear();
}

void ReferenceController::ReadHeat() {
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  absl::StatusOr<std::vector<MemoryHeat>> heat = heat_watch_.Read();
  NoteHeatProblem(heat.status());
  if (heat.ok()) heat_ = *std::move(heat);
  heat_read_ = mmu::MonotonicTime::Now();
  heat_lifetime_ =
      std::max(kMinHeatLifetime, (heat_read_ - start) * kHeatLifetimeInReads);
}

absl::Status ReferenceController::CopyPiece(std::vector<GpaRange> ranges,
                                            MigrationRound* round) {
  observer_->OnPages(ControllerObserver::Pages::kInFlight);
  // Read-only memslots are not logged; they are copied once.
  ranges.insert(ranges.end(), unlogged_.begin(), unlogged_.end());
  std::sort(ranges.begin(), ranges.end(),
            [](const GpaRange& a, const GpaRange& b) {
              return a.gpa_bytes < b.gpa_bytes;
            });
  if (absl::Status status = Copy(ranges, round); !status.ok()) return status;
  unlogged_.clear();
  round_done_bytes_ += TotalBytes(ranges);
  observer_->OnPages(ControllerObserver::Pages::kArrived);
  return absl::OkStatus();
}

absl::Status ReferenceController::Copy(const std::vector<GpaRange>& ranges,
                                       MigrationRound* round) {
  if (ranges.empty()) return absl::OkStatus();
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  CountingSink sink(link_.get(), round_done_bytes_,
                    std::max(round_bytes_, TotalBytes(ranges)), observer_,
                    [this] { return RenewLease(); });
  const absl::StatusOr<ReadTotals> totals = reader_.Read(ranges, &sink);
  if (!totals.ok()) return totals.status();
  sent_->Add(ranges);
  round->page_count += totals->page_count;
  round->zero_page_count += totals->zero_page_count;
  round->sent_bytes += totals->data_size_bytes;
  round->resume_count += totals->resume_count;
  round->transfer_time = TransferTime(round->sent_bytes);
  observer_->OnPages(ControllerObserver::Pages::kRead);
  if (absl::Status status = link_->Flush(); !status.ok()) return status;
  if (options_.pacing == Pacing::kLink) {
    return Wait(TransferTime(totals->data_size_bytes) -
                (mmu::MonotonicTime::Now() - start));
  }
  return absl::OkStatus();
}

absl::Status ReferenceController::FinishRound(mmu::MonotonicTime start,
                                              MigrationRound* round) {
  round->wall_time = mmu::MonotonicTime::Now() - start;
  const absl::StatusOr<lab::v1::WorkloadStatistics> statistics = Statistics();
  if (!statistics.ok()) return statistics.status();
  const absl::Duration stall = FromProto(statistics->stalls().total());
  round->vcpu_stall = stall - std::exchange(last_stall_, stall);
  const absl::StatusOr<v1::UndeliveredPages> counts =
      harvester_->CountUndelivered();
  if (!counts.ok()) return counts.status();
  round->remaining_page_count =
      counts->open_page_count() + counts->sealed_page_count();
  round->in_flight_page_count = counts->in_flight_page_count();
  report_.rounds.push_back(*round);
  observer_->OnRound(*round);
  return absl::OkStatus();
}

absl::StatusOr<v1::Vm> ReferenceController::GetGuest() {
  v1::GetVmRequest request;
  request.set_name(vm_);
  const auto response = client_->vms().GetVm(request);
  if (!response.ok()) return response.status();
  return response->vm();
}

absl::StatusOr<lab::v1::WorkloadStatistics> ReferenceController::Statistics() {
  // A guest that was taken over runs the program of its first controller.
  if (workload_.empty()) return lab::v1::WorkloadStatistics();
  lab::v1::GetWorkloadRequest request;
  request.set_name(workload_);
  const auto response = client_->workloads().GetWorkload(request);
  if (!response.ok()) return response.status();
  // The workload should outlast the run, so if it has ended, it may have
  // failed.
  absl::Status status = FromRpcStatus(response->workload().error());
  if (!status.ok()) return status;
  return response->workload().statistics();
}

absl::Duration ReferenceController::TransferTime(int64_t bytes) const {
  return absl::Seconds(
      static_cast<double>(bytes) /
      static_cast<double>(options_.bandwidth_bytes_per_second));
}

absl::Status ReferenceController::Resume() {
  v1::ResumeVcpusRequest request;
  request.set_vm(vm_);
  paused_since_.reset();
  return client_->vms().ResumeVcpus(request).status();
}

absl::Status ReferenceController::Delete() {
  if (!created_) return absl::OkStatus();
  if (!workload_.empty()) {
    lab::v1::StopWorkloadRequest stop;
    stop.set_name(workload_);
    // The workload may have ended by itself.
    client_->workloads().StopWorkload(stop).status().IgnoreError();
  }
  v1::DeleteVmRequest request;
  request.set_name(vm_);
  // The run is over, with success or not, so the pages left in its log are not
  // needed.
  request.set_force(true);
  return client_->vms().DeleteVm(request).status();
}

}  // namespace mmud::client
