#include "mmu_core/vm/jobs/split_job.h"

#include <algorithm>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/sync/timed_wait.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/jobs/throttle_pause.h"

namespace mmu {
namespace {

// The parts of `wanted` that lie in memslots, in ascending order; all slots if
// `wanted` is empty.
absl::StatusOr<std::vector<GfnRange>> RangesToSplit(
    const MemslotSet& set, std::vector<GfnRange> wanted, MissingSlots missing) {
  std::vector<GfnRange> ranges;
  if (wanted.empty()) {
    for (const Memslot* slot : set.slots()) ranges.push_back(slot->range());
    return ranges;
  }
  std::sort(wanted.begin(), wanted.end(),
            [](GfnRange a, GfnRange b) { return a.start < b.start; });
  for (size_t i = 0; i < wanted.size(); ++i) {
    const GfnRange range = wanted[i];
    const bool overlaps = i > 0 && wanted[i - 1].Overlaps(range);
    if (range.empty() || overlaps ||
        (missing == MissingSlots::kRefuse && set.SlotsIn(range).empty())) {
      return MakeError(
          absl::StatusCode::kInvalidArgument,
          {Reason::kInvalidRange, "ranges", 0},
          Format("gfns 0x%x to 0x%x: each range must be non-empty, "
                 "disjoint from the others, and overlap a memslot",
                 range.start.value(), range.end.value()));
    }
    for (const Memslot* slot : set.SlotsIn(range)) {
      ranges.push_back(range.Intersect(slot->range()));
    }
  }
  return ranges;
}

}  // namespace

absl::StatusOr<std::shared_ptr<SplitJob>> SplitJob::Create(
    VmCore& vm, const SplitRequest& request) {
  if (absl::Status s = ValidateThrottle(request.throttle); !s.ok()) return s;
  if (request.target != Level::k4K && request.target != Level::k2M) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     {Reason::kInvalidPageSize, "target", 0},
                     Format("the target is %s; it must be 4K or 2M",
                            request.target == Level::k1G ? "1G" : "larger"));
  }
  absl::StatusOr<std::vector<GfnRange>> ranges = [&] {
    RcuReadGuard rcu;
    return RangesToSplit(vm.slots.Active(0), request.ranges, request.missing);
  }();
  if (!ranges.ok()) return ranges.status();
  absl::StatusOr<OrderedRanges> ordered = OrderForSplit(
      vm, *std::move(ranges), request.order, request.skip_if_cold_after);
  if (!ordered.ok()) return ordered.status();
  return std::shared_ptr<SplitJob>(
      new SplitJob(vm, request, *std::move(ordered)));
}

SplitJob::SplitJob(VmCore& vm, SplitRequest request, OrderedRanges ordered)
    : vm_(vm),
      request_(std::move(request)),
      ranges_(std::move(ordered.ranges)),
      throttle_(request_.throttle) {
  progress_.cold_bytes = static_cast<int64_t>(ordered.cold_pages << kPageShift);
  for (const GfnRange range : ranges_) {
    progress_.total_bytes += static_cast<int64_t>(range.bytes());
  }
}

absl::Status SplitJob::Run() {
  {
    MutexLock lock(mu_);
    progress_.state = SplitProgress::State::kRunning;
  }
  const bool ascending = request_.order != SplitOrder::kDescending;
  bool going = true;
  for (size_t i = 0; going && i < ranges_.size(); ++i) {
    GfnRange left = ranges_[i];
    while (going && !left.empty()) {
      GfnRange chunk = NextChunk(left);
      if (ascending) {
        left.start = chunk.end;
      } else {
        left.end = chunk.start;
      }
      // In both orders the steps within a chunk ascend. So a step that runs out
      // of time ends where the next step begins.
      Step step = Step::kFirst;
      while (going && !chunk.empty()) {
        going = WaitWhilePausedOrCancelled();
        if (going) chunk.start = DoStep(chunk, step);
        step = Step::kContinued;
      }
    }
  }
  MutexLock lock(mu_);
  progress_.state = cancelled_ ? SplitProgress::State::kCancelled
                               : SplitProgress::State::kDone;
  return absl::OkStatus();
}

// Chunk boundaries are multiples of the chunk, so that a huge page is not
// visited twice.
GfnRange SplitJob::NextChunk(GfnRange left) const {
  const uint64_t pages = throttle().chunk_bytes >> kPageShift;
  if (request_.order != SplitOrder::kDescending) {
    const Gfn next((left.start.value() / pages + 1) * pages);
    return {left.start, std::min(left.end, next)};
  }
  const Gfn previous((left.end.value() - 1) / pages * pages);
  return {std::max(left.start, previous), left.end};
}

Gfn SplitJob::DoStep(GfnRange chunk, Step step) {
  VmCore& vm = vm_;
  const Throttle throttle = ThrottleForStep();
  SplitProgress done;
  const int64_t begin = MonotonicNanos();
  const int64_t stall_before = vm.StallNanos();
  {
    MutexLock slots(vm.slots.slots_lock);
    chunk.end = SplitIn(chunk, throttle.max_lock_hold, begin, step, done);
  }
  const int64_t nanos = MonotonicNanos() - begin;
  done.cost.wall = absl::Nanoseconds(nanos);
  done.done_bytes = static_cast<int64_t>(chunk.bytes());
  vm.counters.split_chunk.Record(nanos);
  const ThrottlePause pause =
      PauseAfter({.bytes = done.done_bytes,
                  .tlb_flushes = done.cost.tlb_flush_count,
                  .wall = absl::Nanoseconds(nanos),
                  .stalled = absl::Nanoseconds(vm.StallNanos() - stall_before) /
                             static_cast<int64_t>(vm.vcpu_stats.size())},
                 throttle);
  Account(done, pause.length);
  if (pause.length > absl::ZeroDuration()) Sleep(pause.length, pause.limit);
  return chunk.end;
}

Gfn SplitJob::SplitIn(GfnRange chunk, absl::Duration max_lock_hold,
                      int64_t begin, Step step, SplitProgress& done) {
  const SplitPlan plan = {.target = request_.target,
                          .trigger = SplitTrigger::kRequest,
                          .step = max_lock_hold,
                          .limit = HoldLimit::For(max_lock_hold)};
  for (const Memslot* slot : vm_.slots.Active(0).SlotsIn(chunk)) {
    const GfnRange range = chunk.Intersect(slot->range());
    const SplitOutcome outcome = vm_.mmus.Split(*slot, range, plan, &done.cost);
    if (step == Step::kContinued && outcome.locked_at_nanos != 0) {
      done.throttled[static_cast<int>(ThrottleLimit::kLockHold)] +=
          absl::Nanoseconds(outcome.locked_at_nanos - begin);
      step = Step::kFirst;
    }
    done.split_1g_count += outcome.split_1g_count;
    done.split_2m_count += outcome.split_2m_count;
    done.skipped_by_reason[static_cast<int>(SplitFailure::kRaced)] +=
        outcome.raced_count;
    done.skipped_by_reason[static_cast<int>(SplitFailure::kNoMemory)] +=
        outcome.no_memory_count;
    done.skipped_by_reason[static_cast<int>(SplitFailure::kLimit)] +=
        outcome.limit_count;
    // The hold of the lock has reached its limit: the next step does the rest.
    if (outcome.next_gfn < range.end) return outcome.next_gfn;
  }
  return chunk.end;
}

void SplitJob::Account(const SplitProgress& chunk, absl::Duration pause) {
  MutexLock lock(mu_);
  progress_.done_bytes += chunk.done_bytes;
  progress_.split_1g_count += chunk.split_1g_count;
  progress_.split_2m_count += chunk.split_2m_count;
  for (int i = 0; i < kSplitFailures; ++i) {
    progress_.skipped_by_reason[i] += chunk.skipped_by_reason[i];
  }
  for (int i = 0; i < kThrottleLimits; ++i) {
    BookThrottled(chunk.throttled[i], static_cast<ThrottleLimit>(i));
  }
  progress_.cost.Add(chunk.cost);
  // Recorded together with the work, so that a reader that sees the work also
  // sees the pause.
  estimate_.AddStep(chunk.done_bytes, chunk.cost.wall, pause,
                    MonotonicTime::Now());
}

bool SplitJob::WaitWhilePausedOrCancelled() {
  MutexLock lock(mu_);
  while (paused_ && !cancelled_) {
    progress_.state = SplitProgress::State::kPaused;
    changed_.Wait(mu_);
  }
  progress_.state = SplitProgress::State::kRunning;
  return !cancelled_;
}

void SplitJob::Sleep(absl::Duration duration, ThrottleLimit limit) {
  const MonotonicTime begin = MonotonicTime::Now();
  const MonotonicTime until = begin + duration;
  MutexLock lock(mu_);
  while (!cancelled_ && !retuned_ && WaitUntil(changed_, mu_, until)) {
  }
  estimate_.EndPause(MonotonicTime::Now());
  // The previous step was made under the old limits.
  if (retuned_) estimate_.Reset();
  retuned_ = false;
  BookThrottled(MonotonicTime::Now() - begin, limit);
}

void SplitJob::BookThrottled(absl::Duration time, ThrottleLimit limit) {
  progress_.throttled[static_cast<int>(limit)] += time;
  vm_.counters.split_throttled_nanos[static_cast<int>(limit)].fetch_add(
      static_cast<uint64_t>(absl::ToInt64Nanoseconds(time)),
      std::memory_order_relaxed);
}

void SplitJob::Cancel() {
  MutexLock lock(mu_);
  cancelled_ = true;
  changed_.NotifyAll();
}

void SplitJob::Pause() {
  MutexLock lock(mu_);
  paused_ = true;
}

void SplitJob::Resume() {
  MutexLock lock(mu_);
  paused_ = false;
  changed_.NotifyAll();
}

absl::Status SplitJob::ChangeThrottle(
    absl::FunctionRef<absl::Status(Throttle*)> change) {
  MutexLock lock(mu_);
  Throttle throttle = throttle_;
  if (absl::Status s = change(&throttle); !s.ok()) return s;
  if (absl::Status s = ValidateThrottle(throttle); !s.ok()) return s;
  throttle_ = throttle;
  retuned_ = true;  // a long sleep under the old limits ends
  estimate_.Reset();
  changed_.NotifyAll();
  return absl::OkStatus();
}

SplitProgress SplitJob::Progress() const {
  MutexLock lock(mu_);
  SplitProgress progress = progress_;
  switch (progress.state) {
    case SplitProgress::State::kPending:
    case SplitProgress::State::kPaused:
      progress.eta = absl::InfiniteDuration();
      break;
    case SplitProgress::State::kRunning:
      progress.eta =
          estimate_.Remaining(progress.total_bytes - progress.done_bytes,
                              progress.total_bytes, MonotonicTime::Now());
      break;
    case SplitProgress::State::kDone:
    case SplitProgress::State::kCancelled:
      progress.eta = absl::ZeroDuration();
      break;
  }
  return progress;
}

Throttle SplitJob::ThrottleForStep() {
  MutexLock lock(mu_);
  retuned_ = false;
  return throttle_;
}

Throttle SplitJob::throttle() const {
  MutexLock lock(mu_);
  return throttle_;
}

}  // namespace mmu
