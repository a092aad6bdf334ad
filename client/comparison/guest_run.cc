#include "client/comparison/guest_run.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/comparison/stalls.h"
#include "client/comparison/temporary_vm.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/operations_client.h"
#include "client/mmu_client/owner_token.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/time_conversion.h"
#include "client/text/units.h"
#include "google/longrunning/operations.pb.h"
#include "mmud/lab/v1/workload_service.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/split_service.pb.h"
#include "mmud/v1/stats_service.pb.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud::client {
namespace {

using google::longrunning::Operation;

constexpr absl::Duration kPollInterval = absl::Milliseconds(100);
constexpr char kOwner[] = "mmuctl compare";
// The first passes over new memory are slow, whatever the MMU does: the host
// finds memory, and its own mappings and caches get warm.
constexpr int64_t kPopulatingPasses = 3;
// Names of statistics, or their beginnings.
constexpr char kFlushRequests[] = "remote_tlb_flush_requests";
constexpr char kFlushes[] = "remote_tlb_flush";
constexpr char kTlbi[] = "tlbi_";
constexpr char kBroadcast[] = "is";  // end of the name of a TLBI
constexpr char kStall[] = "stall_";

// The steps' shares of the time of a combination, for the progress only.
constexpr double kPopulated = 0.4;
constexpr double kEnabled = 0.7;

using Statistics = std::map<std::string, int64_t>;

// Runs one guest. Thread-compatible.
class GuestRun {
 public:
  GuestRun(Client& client, const PlanOptions& options,
           const Combination& combination, const std::string& vm,
           OnGuestStep on_step)
      : client_(client), options_(options), vm_(vm), on_step_(on_step) {
    result_.combination = combination;
  }

  absl::StatusOr<CombinationResult> Run() {
    using Step = absl::Status (GuestRun::*)();
    for (const Step step :
         {&GuestRun::Populate, &GuestRun::ReadBefore, &GuestRun::StartLoad,
          &GuestRun::SplitAheadOfLog, &GuestRun::EnableLog, &GuestRun::StopLoad,
          &GuestRun::MakePass, &GuestRun::ReadAfter}) {
      if (absl::Status s = (this->*step)(); !s.ok()) return s;
    }
    return result_;
  }

 private:
  // A sequential program of all vCPUs over all memory.
  lab::v1::StartWorkloadRequest Program(double write_fraction) const {
    lab::v1::StartWorkloadRequest request;
    request.set_vm(vm_);
    lab::v1::Workload& workload = *request.mutable_workload();
    workload.set_seed(options_.seed);
    *workload.mutable_max_duration() = ToProto(options_.time_limit);
    workload.mutable_pattern()->set_write_fraction(write_fraction);
    workload.mutable_pattern()->mutable_sequential()->set_stride_bytes(
        kPageBytes);
    return request;
  }

  // Runs a program of so many passes to its end. `from` and `to`: the shares
  // done before and after it.
  absl::StatusOr<lab::v1::Workload> RunProgram(
      lab::v1::StartWorkloadRequest request, int64_t passes,
      const std::string& words, double from, double to) {
    request.mutable_workload()->set_access_count(
        passes * PassLength(options_, result_.combination.vcpu_count));
    const auto started = client_.workloads().StartWorkload(request);
    if (!started.ok()) return started.status();
    const auto ended = client_.workloads().AwaitEnd(
        started->workload().name(), [&](const lab::v1::Workload& state) {
          const double total = static_cast<double>(
              std::max<int64_t>(state.total_access_count(), 1));
          const double done =
              static_cast<double>(state.statistics().access_count()) / total;
          return on_step_(from + (to - from) * std::min(done, 1.0), words);
        });
    if (!ended.ok()) return ended.status();
    if (ended->has_error()) return FromRpcStatus(ended->error());
    return *ended;
  }

  bool ReachedLimit(const lab::v1::Workload& workload) const {
    return FromProto(workload.running_time()) >= options_.time_limit;
  }

  absl::Status LimitError(absl::string_view step) const {
    return absl::DeadlineExceededError(
        absl::StrCat(step, " of ", vm_, " (", Describe(result_.combination),
                     ") has not ended within ", FormatTime(options_.time_limit),
                     "; give a longer --time-limit, less --memory",
                     result_.combination.policy == LogPolicy::kThrottled
                         ? ", or a faster pace of the split"
                         : ""));
  }

  absl::Status Populate() {
    const auto ended =
        RunProgram(Program(1), kPopulatingPasses, "populating", 0, kPopulated);
    if (!ended.ok()) return ended.status();
    return ReachedLimit(*ended) ? LimitError("populating") : absl::OkStatus();
  }

  absl::Status ReadBefore() {
    if (absl::Status s = ReadMappings(&result_.mapped_before); !s.ok()) {
      return s;
    }
    return ReadStatistics(&statistics_before_);
  }

  absl::Status StartLoad() {
    lab::v1::StartWorkloadRequest request =
        Program(result_.combination.write_fraction);
    lab::v1::Workload& workload = *request.mutable_workload();
    workload.set_max_accesses_per_second(std::max<int64_t>(
        kLoadAccessesPerSecond / result_.combination.vcpu_count, 1));
    // It ends by itself if this program is killed.
    *workload.mutable_max_duration() = ToProto(3 * options_.time_limit);
    const auto started = client_.workloads().StartWorkload(request);
    if (!started.ok()) return started.status();
    load_ = started->workload().name();
    return absl::OkStatus();
  }

  // Waits until the operation is done, and returns it.
  absl::StatusOr<Operation> Await(const absl::StatusOr<Operation>& started,
                                  const std::string& words) {
    if (!started.ok()) return started.status();
    absl::StatusOr<Operation> done = client_.operations().Await(
        started->name(), kPollInterval,
        [&](const Operation&) { return on_step_(kPopulated, words); },
        options_.time_limit);
    if (absl::IsDeadlineExceeded(done.status())) return LimitError(words);
    return done;
  }

  // The answer and the progress of an operation that is done.
  template <typename Response, typename Metadata>
  struct Done {
    Response response;
    Metadata metadata;
  };
  template <typename Response, typename Metadata>
  absl::StatusOr<Done<Response, Metadata>> AwaitAnswer(
      const absl::StatusOr<Operation>& started, const std::string& words) {
    const absl::StatusOr<Operation> done = Await(started, words);
    if (!done.ok()) return done.status();
    absl::StatusOr<Response> response = OperationResponse<Response>(*done);
    if (!response.ok()) return response.status();
    absl::StatusOr<Metadata> metadata = OperationMetadata<Metadata>(*done);
    if (!metadata.ok()) return metadata.status();
    return Done<Response, Metadata>{*std::move(response), *std::move(metadata)};
  }

  absl::Status SplitAheadOfLog() {
    if (result_.combination.policy != LogPolicy::kThrottled) {
      return absl::OkStatus();
    }
    v1::SplitHugePagesRequest request;
    request.set_vm(vm_);
    *request.mutable_throttle() = options_.throttle;
    const auto done =
        AwaitAnswer<v1::SplitHugePagesResponse, v1::SplitMetadata>(
            client_.splits().SplitHugePages(request), "splitting ahead");
    if (!done.ok()) return done.status();
    result_.split_ahead =
        SplitAhead{.time = FromProto(done->metadata.running_time()),
                   .page_count = done->metadata.done_bytes() / kPageBytes,
                   .splits = done->response.splits(),
                   .throttled = done->metadata.throttled(),
                   .cost = done->response.cost()};
    return absl::OkStatus();
  }

  absl::Status EnableLog() {
    v1::StartDirtyLogRequest request;
    request.set_vm(vm_);
    request.set_owner(kOwner);
    request.set_owner_token(NewOwnerToken());
    request.set_split(result_.combination.policy == LogPolicy::kEager
                          ? v1::DIRTY_LOG_SPLIT_EAGER
                          : v1::DIRTY_LOG_SPLIT_NONE);
    const auto done =
        AwaitAnswer<v1::StartDirtyLogResponse, v1::StartDirtyLogMetadata>(
            client_.dirty_log().StartDirtyLog(request), "enabling the log");
    if (!done.ok()) return done.status();
    result_.enabling = {.time = FromProto(done->metadata.running_time()),
                        .splits = done->response.splits(),
                        .cost = done->response.cost()};
    return absl::OkStatus();
  }

  absl::Status StopLoad() {
    lab::v1::StopWorkloadRequest request;
    request.set_name(load_);
    const auto stopped = client_.workloads().StopWorkload(request);
    if (!stopped.ok()) return WhyNotStopped(stopped.status());
    AddFaults(stopped->workload().statistics().faults());
    result_.stalls = stopped->workload().statistics().stalls();
    return CountDirtyPages(&result_.pass.earlier_page_count);
  }

  // `status` of StopWorkload, or the error that has ended the workload before.
  absl::Status WhyNotStopped(const absl::Status& status) {
    lab::v1::GetWorkloadRequest request;
    request.set_name(load_);
    const auto response = client_.workloads().GetWorkload(request);
    return response.ok() && response->workload().has_error()
               ? FromRpcStatus(response->workload().error())
               : status;
  }

  absl::Status MakePass() {
    const auto ended = RunProgram(Program(result_.combination.write_fraction),
                                  1, "dirtying memory", kEnabled, 1);
    if (!ended.ok()) return ended.status();
    const lab::v1::WorkloadStatistics& statistics = ended->statistics();
    DirtyPass& pass = result_.pass;
    pass.time = FromProto(ended->running_time());
    pass.limit_reached = ReachedLimit(*ended);
    pass.access_count = statistics.access_count();
    pass.write_count = statistics.write_count();
    AddFaults(statistics.faults());
    const auto stalls = Sum(result_.stalls, statistics.stalls());
    if (!stalls.ok()) return stalls.status();
    result_.stalls = *stalls;
    return absl::OkStatus();
  }

  absl::Status ReadAfter() {
    if (absl::Status s = CountDirtyPages(&result_.pass.page_count); !s.ok()) {
      return s;
    }
    if (absl::Status s = ReadMappings(&result_.mapped_after); !s.ok()) return s;
    Statistics after;
    if (absl::Status s = ReadStatistics(&after); !s.ok()) return s;
    for (const auto& [name, value] : after) {
      const int64_t more = value - statistics_before_[name];
      if (name == kFlushRequests) result_.flush_request_count = more;
      if (name == kFlushes) result_.flush_count = more;
      if (options_.mmu->flush_by == FlushBy::kTlbi &&
          absl::StartsWith(name, kTlbi) && absl::EndsWith(name, kBroadcast)) {
        result_.tlbi_count = result_.tlbi_count.value_or(0) + more;
      }
      if (absl::StartsWith(name, kStall)) {
        result_.stall_times[std::string(absl::StripPrefix(name, kStall))] =
            absl::Nanoseconds(more);
      }
    }
    result_.fault_splits = SplitsByFaults(*options_.mmu, result_);
    result_.pass.all_written =
        AllWrittenAreDirty(options_, result_.combination, result_.pass);
    return absl::OkStatus();
  }

  absl::Status ReadMappings(v1::PageCounts* pages) {
    v1::GetVmRequest request;
    request.set_name(vm_);
    request.set_view(v1::VM_VIEW_BASIC);
    const auto vm = client_.vms().GetVm(request);
    if (!vm.ok()) return vm.status();
    *pages = vm->vm().mapped_pages();
    return absl::OkStatus();
  }

  absl::Status ReadStatistics(Statistics* statistics) {
    v1::GetMmuStatsRequest request;
    request.set_vm(vm_);
    const auto response = client_.stats().GetMmuStats(request);
    if (!response.ok()) return response.status();
    for (const v1::VmMmuStats& vm : response->vms()) {
      for (const v1::MmuStatistic& statistic : vm.statistics()) {
        (*statistics)[statistic.name()] = statistic.value();
      }
    }
    return absl::OkStatus();
  }

  absl::Status CountDirtyPages(int64_t* pages) {
    v1::GetDirtyLogRequest request;
    request.set_vm(vm_);
    request.set_count_open_pages(true);
    const auto response = client_.dirty_log().GetDirtyLog(request);
    if (!response.ok()) return response.status();
    *pages = 0;
    for (const v1::SlotDirtyLog& slot : response->dirty_log().slots()) {
      *pages += slot.open_page_count();
    }
    return absl::OkStatus();
  }

  void AddFaults(const lab::v1::FaultCounts& more) {
    lab::v1::FaultCounts& all = result_.faults;
    all.set_fixed_count(all.fixed_count() + more.fixed_count());
    all.set_fast_count(all.fast_count() + more.fast_count());
    all.set_spurious_count(all.spurious_count() + more.spurious_count());
    all.set_emulate_count(all.emulate_count() + more.emulate_count());
    all.set_retry_count(all.retry_count() + more.retry_count());
    all.set_error_count(all.error_count() + more.error_count());
  }

  Client& client_;
  const PlanOptions& options_;
  const std::string vm_;
  const OnGuestStep on_step_;
  std::string load_;  // name of the workload
  Statistics statistics_before_;
  CombinationResult result_;
};

v1::CreateVmRequest VmRequest(const PlanOptions& options,
                              const Combination& combination) {
  v1::CreateVmRequest request;
  request.set_vm_id(combination.vm_id);
  v1::Vm& vm = *request.mutable_vm();
  options.mmu->select(&vm);
  vm.set_vcpu_count(combination.vcpu_count);
  v1::Memslot& memslot = *vm.add_memslots();
  memslot.set_size_bytes(options.memory_bytes);
  memslot.set_host_page_size(options.huge_page_size);
  return request;
}

}  // namespace

absl::StatusOr<CombinationResult> RunGuest(Client& client,
                                           const PlanOptions& options,
                                           const Combination& combination,
                                           OnGuestStep on_step) {
  if (absl::Status s = on_step(0, "creating the VM"); !s.ok()) return s;
  const absl::StatusOr<std::unique_ptr<TemporaryVm>> vm =
      TemporaryVm::Create(&client, VmRequest(options, combination));
  if (!vm.ok()) return vm.status();
  absl::StatusOr<CombinationResult> result =
      GuestRun(client, options, combination, (*vm)->name(), on_step).Run();
  const absl::Status deleted = (*vm)->Delete();
  if (!result.ok() || deleted.ok()) return result;
  return deleted;
}

}  // namespace mmud::client
