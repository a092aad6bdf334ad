#include "client/reference_controller.h"

#include <algorithm>
#include <cstdint>
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
#include "client/mmu_client/operations_client.h"
#include "client/mmu_client/time_conversion.h"
#include "client/text/units.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "mmu_core/base/clock.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/split_service.pb.h"

namespace mmud::client {
namespace {

using google::longrunning::Operation;

constexpr absl::Duration kPollInterval = absl::Milliseconds(100);

// Hands pages on and reports how many of them came.
class CountingSink final : public PageSink {
 public:
  CountingSink(PageSink* next, int64_t total_bytes,
               ControllerObserver* observer)
      : next_(next), total_bytes_(total_bytes), observer_(observer) {}

  absl::Status OnData(int64_t gpa_bytes, absl::string_view data) override {
    Count(static_cast<int64_t>(data.size()));
    return next_->OnData(gpa_bytes, data);
  }
  absl::Status OnZeros(GpaRange range) override {
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
  int64_t done_bytes_ = 0;
};

std::vector<GpaRange> RangesOf(const std::vector<SlotRange>& slots) {
  std::vector<GpaRange> ranges;
  for (const SlotRange& slot : slots) ranges.push_back(slot.range);
  return ranges;
}

// The name of the field of Vm.mmu that is set; a daemon always sets one.
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
      harvester_(&client->dirty_log(), vm_, {}),
      reader_(&client->memory(), vm_, {}) {}

absl::StatusOr<MigrationReport> ReferenceController::Run() {
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  using Step = absl::Status (ReferenceController::*)();
  constexpr Step kSteps[] = {
      &ReferenceController::CreateGuest,  &ReferenceController::Populate,
      &ReferenceController::StartProgram, &ReferenceController::Split,
      &ReferenceController::StartLog,     &ReferenceController::CopyBaseline,
      &ReferenceController::RunRounds,    &ReferenceController::StopAndCopyRest,
      &ReferenceController::StopLog,      &ReferenceController::Compare};
  for (const Step step : kSteps) {
    if (absl::Status status = (this->*step)(); !status.ok()) return status;
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
  for (const v1::Memslot& slot : response->vm().memslots()) {
    slots_.push_back({slot.slot(), {slot.gpa_bytes(), slot.size_bytes()}});
  }
  absl::StatusOr<std::unique_ptr<GuestCopy>> copy =
      GuestCopy::Create(RangesOf(slots_));
  if (!copy.ok()) return copy.status();
  copy_ = *std::move(copy);
  report_.vm = vm_;
  report_.mmu = MmuName(response->vm());
  report_.trace = options_.trace_name;
  report_.memory_bytes = copy_->size_bytes();
  report_.vcpu_count = options_.vcpu_count;
  report_.bandwidth_bytes_per_second = options_.bandwidth_bytes_per_second;
  report_.downtime_target = options_.downtime_target;
  return absl::OkStatus();
}

absl::Status ReferenceController::Populate() {
  observer_->OnStep(absl::StrCat("the guest writes to all of its ",
                                 FormatBytes(report_.memory_bytes), " once"));
  v1::StartWorkloadRequest request;
  request.set_vm(vm_);
  request.set_vcpu_count(1);
  request.mutable_pattern()->set_write_fraction(1);
  request.mutable_pattern()->mutable_sequential()->set_stride_bytes(
      options_.populate_stride_bytes);
  request.set_access_count(report_.memory_bytes /
                           options_.populate_stride_bytes);
  absl::StatusOr<Operation> operation =
      client_->workloads().StartWorkload(request);
  if (!operation.ok()) return operation.status();
  operation = client_->operations().Await(
      operation->name(), kPollInterval, [this](const Operation& state) {
        const auto metadata = OperationMetadata<v1::WorkloadMetadata>(state);
        if (metadata.ok() && metadata->total_access_count() > 0) {
          observer_->OnProgress(
              static_cast<double>(metadata->statistics().access_count()) /
                  static_cast<double>(metadata->total_access_count()),
              absl::StrCat(FormatCount(metadata->statistics().access_count()),
                           " writes"));
        }
        return absl::OkStatus();
      });
  if (!operation.ok()) return operation.status();
  return OperationResponse<v1::StartWorkloadResponse>(*operation).status();
}

absl::Status ReferenceController::StartProgram() {
  observer_->OnStep(absl::StrCat(options_.vcpu_count, " vCPUs run ",
                                 options_.trace_name, " again and again"));
  v1::StartWorkloadRequest request;
  request.set_vm(vm_);
  request.set_seed(options_.seed);
  request.set_max_accesses_per_second(options_.accesses_per_second_per_vcpu);
  request.mutable_trace()->set_trace_name(options_.trace_name);
  // More often than any run lasts: it is stopped.
  request.mutable_trace()->set_repeat_count(1'000'000);
  const auto operation = client_->workloads().StartWorkload(request);
  if (!operation.ok()) return operation.status();
  workload_ = operation->name();
  return absl::OkStatus();
}

absl::Status ReferenceController::Split() {
  observer_->OnStep("splitting huge mappings, throttled");
  absl::StatusOr<v1::Vm> guest = GetGuest();
  if (!guest.ok()) return guest.status();
  report_.pages_before = guest->mapped_pages();

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
  observer_->OnStep("switching the dirty log on");
  v1::StartDirtyLogRequest request;
  request.set_vm(vm_);
  // What the guest mapped huge since the split is split now; there is little.
  request.set_split(v1::DIRTY_LOG_SPLIT_EAGER);
  const auto response = client_->dirty_log().StartDirtyLog(request);
  if (!response.ok()) return response.status();
  report_.start_cost = response->cost();
  // From here on young pages are those used during the migration.
  return Age(v1::AGING_MODE_TEST_AND_CLEAR);
}

absl::Status ReferenceController::CopyBaseline() {
  observer_->OnStep("baseline: copying all memory while the guest runs");
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  const absl::StatusOr<v1::WorkloadStatistics> statistics = Statistics();
  if (!statistics.ok()) return statistics.status();
  last_stall_ = FromProto(statistics->stalls().total());
  MigrationRound round;
  round.name = "baseline";
  if (absl::Status status = Copy(RangesOf(slots_), &round); !status.ok()) {
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
    if (absl::Status status = HarvestRound(&round); !status.ok()) {
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
  return Age(v1::AGING_MODE_TEST);
}

absl::Status ReferenceController::StopAndCopyRest() {
  observer_->OnStep("stopping the guest, last round");
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  v1::PauseVcpusRequest request;
  request.set_vm(vm_);
  if (absl::Status status = client_->workloads().PauseVcpus(request).status();
      !status.ok()) {
    return status;
  }
  MigrationRound round;
  round.name = "final";
  if (absl::Status status = HarvestRound(&round); !status.ok()) return status;
  report_.estimated_downtime = round.harvest_time + round.transfer_time;
  if (absl::Status status = FinishRound(start, &round); !status.ok()) {
    return status;
  }
  const absl::StatusOr<v1::WorkloadStatistics> statistics = Statistics();
  if (!statistics.ok()) return statistics.status();
  const v1::FaultCounts& faults = statistics->faults();
  report_.access_count = statistics->access_count();
  report_.write_count = statistics->write_count();
  report_.fault_count = faults.fixed_count() + faults.fast_count() +
                        faults.spurious_count() + faults.emulate_count() +
                        faults.retry_count() + faults.error_count();
  return absl::OkStatus();
}

absl::Status ReferenceController::StopLog() {
  observer_->OnStep("switching the dirty log off, recovering huge pages");
  v1::StopDirtyLogRequest request;
  request.set_vm(vm_);
  request.set_recover_huge_pages(true);
  if (absl::Status status = client_->dirty_log().StopDirtyLog(request).status();
      !status.ok()) {
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
  CountingSink sink(&comparison, report_.memory_bytes, observer_);
  if (absl::Status status = reader_.Read(RangesOf(slots_), &sink).status();
      !status.ok()) {
    return status;
  }
  report_.compared_bytes = comparison.compared_bytes();
  report_.equal = comparison.equal();
  report_.different_page_count = comparison.different_page_count();
  report_.differences = comparison.differences();
  return absl::OkStatus();
}

absl::Status ReferenceController::Age(v1::AgingMode mode) {
  v1::AgeRangeRequest request;
  request.set_vm(vm_);
  request.set_mode(mode);
  const auto response = client_->aging().AgeRange(request);
  if (!response.ok()) return response.status();
  if (mode == v1::AGING_MODE_TEST_AND_CLEAR) {
    aged_ = mmu::MonotonicTime::Now();
  } else {
    report_.young_page_count = response->young_page_count();
    report_.old_page_count = response->old_page_count();
    report_.young_since = mmu::MonotonicTime::Now() - aged_;
  }
  return absl::OkStatus();
}

absl::Status ReferenceController::HarvestRound(MigrationRound* round) {
  std::vector<GpaRange> ranges;
  for (const SlotRange& slot : slots_) {
    const absl::StatusOr<Harvest> harvest = harvester_.Run(slot.slot);
    if (!harvest.ok()) return harvest.status();
    for (const GpaRange& range : harvest->pages.Ranges()) {
      ranges.push_back(range);
    }
    round->harvest_time += harvest->seal_time + harvest->clear_time;
    round->resume_count += harvest->resume_count;
    AddCost(harvest->cost, &round->cost);
  }
  return Copy(ranges, round);
}

absl::Status ReferenceController::Copy(const std::vector<GpaRange>& ranges,
                                       MigrationRound* round) {
  if (ranges.empty()) return absl::OkStatus();
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  CountingSink sink(copy_.get(), TotalBytes(ranges), observer_);
  const absl::StatusOr<ReadTotals> totals = reader_.Read(ranges, &sink);
  if (!totals.ok()) return totals.status();
  round->page_count += totals->page_count;
  round->zero_page_count += totals->zero_page_count;
  round->sent_bytes += totals->data_size_bytes;
  round->resume_count += totals->resume_count;
  round->transfer_time = TransferTime(round->sent_bytes);
  if (options_.pacing == Pacing::kLink) {
    absl::SleepFor(round->transfer_time - (mmu::MonotonicTime::Now() - start));
  }
  return absl::OkStatus();
}

absl::Status ReferenceController::FinishRound(mmu::MonotonicTime start,
                                              MigrationRound* round) {
  round->wall_time = mmu::MonotonicTime::Now() - start;
  const absl::StatusOr<v1::WorkloadStatistics> statistics = Statistics();
  if (!statistics.ok()) return statistics.status();
  const absl::Duration stall = FromProto(statistics->stalls().total());
  round->vcpu_stall = stall - std::exchange(last_stall_, stall);
  for (const SlotRange& slot : slots_) {
    const absl::StatusOr<int64_t> pages = harvester_.CountDirtyPages(slot.slot);
    if (!pages.ok()) return pages.status();
    round->remaining_page_count += *pages;
  }
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

absl::StatusOr<v1::WorkloadStatistics> ReferenceController::Statistics() {
  const absl::StatusOr<Operation> operation =
      client_->operations().Get(workload_);
  if (!operation.ok()) return operation.status();
  if (operation->done()) {
    // It was to outlast the run, so it failed.
    const auto response =
        OperationResponse<v1::StartWorkloadResponse>(*operation);
    if (!response.ok()) return response.status();
    return response->statistics();
  }
  const auto metadata = OperationMetadata<v1::WorkloadMetadata>(*operation);
  if (!metadata.ok()) return metadata.status();
  return metadata->statistics();
}

absl::Duration ReferenceController::TransferTime(int64_t bytes) const {
  return absl::Seconds(
      static_cast<double>(bytes) /
      static_cast<double>(options_.bandwidth_bytes_per_second));
}

absl::Status ReferenceController::Resume() {
  v1::ResumeVcpusRequest request;
  request.set_vm(vm_);
  return client_->workloads().ResumeVcpus(request).status();
}

absl::Status ReferenceController::Delete() {
  if (!created_) return absl::OkStatus();
  if (!workload_.empty()) {
    v1::StopWorkloadRequest stop;
    stop.set_vm(vm_);
    // It may have ended by itself.
    client_->workloads().StopWorkload(stop).status().IgnoreError();
    // The vCPUs are idle now; the operation ends a moment later, and a guest
    // with a running operation cannot be deleted.
    client_->operations()
        .Wait(workload_, absl::Seconds(10))
        .status()
        .IgnoreError();
  }
  v1::DeleteVmRequest request;
  request.set_name(vm_);
  // The run is over, well or not: what its log still has is for nobody.
  request.set_discard_unacked(true);
  return client_->vms().DeleteVm(request).status();
}

}  // namespace mmud::client
