#include "server/control/dirty_log_control.h"

#include <cstdint>
#include <memory>
#include <random>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "mmu_core/vm/vm.h"
#include "server/control/dirty_log_calls.h"
#include "server/control/operation_store.h"

namespace mmud {
namespace {

// A new log id: 128 random bits.
mmu::LogId NewLogId() {
  thread_local std::random_device device;
  const auto word = [] {
    return (uint64_t{device()} << 32) | uint64_t{device()};
  };
  mmu::LogId id;
  id.high = word();
  id.low = word();
  return id;
}

// The ranges to split before the slots log: those of `slots`, or of all
// writable slots if `slots` is empty. Empty if none of these slots exists (any
// more).
std::vector<mmu::GfnRange> RangesToLog(const ManagedVm& vm,
                                       const std::vector<uint32_t>& slots) {
  const std::unordered_set<uint32_t> named(slots.begin(), slots.end());
  std::vector<mmu::GfnRange> ranges;
  for (const mmu::MemslotInfo& info : vm.SortedSlots()) {
    const mmu::MemslotConfig& slot = info.config;
    const bool wanted = named.empty()
                            ? slot.mode == mmu::MemslotConfig::Mode::kReadWrite
                            : named.contains(slot.slot);
    if (slot.address_space != 0 || !wanted) continue;
    ranges.push_back(mmu::GfnRange::Of(mmu::ToGfn(slot.gpa),
                                       slot.size_bytes >> mmu::kPageShift));
  }
  return ranges;
}

}  // namespace

absl::StatusOr<std::shared_ptr<mmu::SplitJob>> MakeSplitAhead(
    const std::vector<uint32_t>& slots, const mmu::Throttle& throttle,
    ManagedVm& vm) {
  mmu::SplitRequest ahead;
  ahead.ranges = RangesToLog(vm, slots);
  // A split job takes an empty list of ranges for all memory of the VM.
  if (ahead.ranges.empty()) return nullptr;
  ahead.throttle = throttle;
  // A slot that is deleted meanwhile needs no split.
  ahead.missing = mmu::MissingSlots::kSkip;
  return vm.vm().MakeSplitJob(ahead);
}

absl::StatusOr<std::shared_ptr<DirtyLogStartJob>> DirtyLogStartJob::Create(
    DirtyLogStartRequest request, ManagedVm& vm) {
  mmu::DirtyLogStart& start = request.start;
  start.id = NewLogId();
  start.now = mmu::MonotonicTime::Now();
  const absl::StatusOr<absl::optional<mmu::DirtyLogView>> log =
      vm.vm().CheckDirtyLogStart(start);
  if (!log.ok()) return AboutLog(log.status(), vm.name());
  std::shared_ptr<mmu::SplitJob> split;
  // If the owner starts its running log again, there is nothing to split.
  if (!log->has_value() && request.split_ahead.has_value() &&
      start.config.split == mmu::SplitPolicy::kEager) {
    absl::StatusOr<std::shared_ptr<mmu::SplitJob>> job =
        MakeSplitAhead(start.config.slots, *request.split_ahead, vm);
    if (!job.ok()) return job.status();
    split = *std::move(job);
  }
  return std::shared_ptr<DirtyLogStartJob>(
      new DirtyLogStartJob(vm, std::move(start), std::move(split)));
}

absl::StatusOr<mmu::StartResult> DirtyLogStartJob::StartNow(
    mmu::MmuCost* cost) {
  absl::StatusOr<mmu::StartResult> result =
      vm_.vm().StartDirtyLog(start_, cost);
  if (!result.ok()) return AboutLog(result.status(), vm_.name());
  if (result->log.state.id == start_.id) {
    vm_.dirty_rate().Restart(vm_.SampleDirty(mmu::MonotonicTime::Now()));
  }
  return result;
}

absl::StatusOr<StartedDirtyLog> DirtyLogStartJob::Run() {
  absl::StatusOr<StartedDirtyLog> started = Work();
  absl::MutexLock lock(&mu_);
  state_ = started.ok() ? State::kDone : State::kGivenUp;
  return started;
}

absl::StatusOr<StartedDirtyLog> DirtyLogStartJob::Work() {
  mmu::SplitProgress ahead;
  if (split_ != nullptr) {
    if (absl::Status status = split_->Run(); !status.ok()) return status;
    ahead = split_->Progress();
  }
  if (cancelled()) return CancelledOperation();
  {
    absl::MutexLock lock(&mu_);
    state_ = State::kProtecting;
  }
  start_.now = mmu::MonotonicTime::Now();
  mmu::MmuCost cost = ahead.cost;
  absl::StatusOr<mmu::StartResult> started = StartNow(&cost);
  HugePageSplits splits = {.of_2m = ahead.split_2m_count,
                           .of_1g = ahead.split_1g_count};
  if (started.ok()) {
    splits.of_2m += static_cast<int64_t>(started->split_2m_count);
    splits.of_1g += static_cast<int64_t>(started->split_1g_count);
  }
  {
    absl::MutexLock lock(&mu_);
    splits_ = splits;
    cost_ = cost;
  }
  if (!started.ok()) return started.status();
  return StartedDirtyLog{std::move(started->log), splits, cost};
}

void DirtyLogStartJob::Cancel() {
  {
    absl::MutexLock lock(&mu_);
    cancelled_ = true;
  }
  if (split_ != nullptr) split_->Cancel();
}

bool DirtyLogStartJob::cancelled() const {
  absl::MutexLock lock(&mu_);
  return cancelled_;
}

DirtyLogStartJob::Progress DirtyLogStartJob::progress() const {
  mmu::SplitProgress ahead;
  if (split_ != nullptr) ahead = split_->Progress();
  Progress progress;
  progress.total_bytes = ahead.total_bytes;
  progress.done_bytes = ahead.done_bytes;
  progress.splits = {.of_2m = ahead.split_2m_count,
                     .of_1g = ahead.split_1g_count};
  progress.cost = ahead.cost;
  absl::MutexLock lock(&mu_);
  progress.state = state_;
  if (splits_.has_value()) {
    progress.splits = *splits_;
    progress.cost = cost_;
  }
  return progress;
}

absl::StatusOr<StoppedDirtyLog> StopDirtyLog(const mmu::DirtyLogStop& stop,
                                             ManagedVm& vm) {
  StoppedDirtyLog stopped;
  const absl::StatusOr<mmu::StopResult> result =
      vm.vm().StopDirtyLog(stop, &stopped.cost);
  if (!result.ok()) return AboutLog(result.status(), vm.name());
  stopped.result = *result;
  return stopped;
}

}  // namespace mmud
