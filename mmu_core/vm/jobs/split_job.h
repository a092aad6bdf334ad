// Splitting huge pages ahead of the guest's writes, at a bounded pace.
//
// A job processes its ranges chunk by chunk. Each chunk takes mmu_lock for
// read, or on stage 2 for write, splits until the chunk is done or
// `max_lock_hold` is used up, and releases the lock. Between chunks the job
// waits as its Throttle says, and checks whether it was cancelled, paused or
// retuned. It is best effort: pages that could not be split stay huge, and the
// guest's first write splits them (TDP-63). Cancelling never undoes a split.

#ifndef MMU_CORE_VM_JOBS_SPLIT_JOB_H_
#define MMU_CORE_VM_JOBS_SPLIT_JOB_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/vm/core/missing_slots.h"
#include "mmu_core/vm/jobs/pace_estimate.h"
#include "mmu_core/vm/jobs/split_order.h"
#include "mmu_core/vm/jobs/throttle.h"

namespace mmu {

struct VmCore;

struct SplitRequest {
  std::vector<GfnRange> ranges;  // of address space 0; empty means all slots
  Level target = Level::k4K;     // k4K or k2M
  MissingSlots missing = MissingSlots::kRefuse;
  SplitOrder order = SplitOrder::kAscending;
  // If set, blocks of 2 MiB stay as they are if no page of theirs was found
  // young for so long.
  absl::optional<absl::Duration> skip_if_cold_after;
  Throttle throttle;
};

// The progress of a job. A value.
struct SplitProgress {
  int64_t total_bytes = 0;
  int64_t done_bytes = 0;
  int64_t cold_bytes = 0;  // left out as cold; not part of the total
  int64_t split_1g_count = 0;
  int64_t split_2m_count = 0;
  std::array<int64_t, kSplitFailures> skipped_by_reason{};
  // Time lost to each limit. kLockHold: the waits for mmu_lock after it was
  // released in the middle of a chunk. Others: sleep.
  std::array<absl::Duration, kThrottleLimits> throttled{};
  // The remaining time at the present pace. InfiniteDuration while unknown:
  // until a few chunks are done, and while paused.
  absl::Duration eta;
  MmuCost cost;
  enum class State : uint8_t {
    kPending,
    kRunning,
    kPaused,
    kDone,
    kCancelled,
  } state = State::kPending;
};

// Legal transitions: kPending -> kRunning -> {kPaused <-> kRunning} -> kDone or
// kCancelled. Run makes them; Pause, Resume and Cancel only request them.
// Thread-safe. Must not outlive its Vm.
class SplitJob {
 public:
  // The order is made here, by what is known now. Fails with INVALID_THROTTLE,
  // INVALID_RANGE, INVALID_PAGE_SIZE, NO_GENERATION.
  static absl::StatusOr<std::shared_ptr<SplitJob>> Create(
      VmCore& vm, const SplitRequest& request);

  // Runs to the end on the calling thread; returns OK also when cancelled
  // (Progress().state tells). Call once. Takes slots_lock chunk by chunk.
  absl::Status Run();

  void Cancel();
  void Pause();
  void Resume();
  // Changes the present throttle by `change`, atomically. If `change` returns
  // an error, that error is returned and nothing changes. Takes effect at the
  // next chunk. INVALID_THROTTLE. `change` must not call functions of this job.
  absl::Status ChangeThrottle(
      absl::FunctionRef<absl::Status(Throttle*)> change);

  SplitProgress Progress() const;
  Throttle throttle() const;

 private:
  SplitJob(VmCore& vm, SplitRequest request, OrderedRanges ordered);

  // Whether a step begins a chunk, or continues one in which it released
  // mmu_lock.
  enum class Step : uint8_t { kFirst, kContinued };

  // The part of `left` to be done next, at most a chunk.
  GfnRange NextChunk(GfnRange left) const;
  // Splits as much of `chunk` as one hold of the lock allows, waits as the
  // throttle says, and returns the start of the rest of the chunk.
  Gfn DoStep(GfnRange chunk, Step step);
  // The work of such a step, which began at `begin` by the monotonic clock;
  // returns the start of the rest of the chunk. Adds to `done`. REQUIRES:
  // slots_lock.
  Gfn SplitIn(GfnRange chunk, absl::Duration max_lock_hold, int64_t begin,
              Step step, SplitProgress& done);
  // The throttle for the next step; a later change of it ends the step's sleep.
  Throttle ThrottleForStep();
  // Records a step, and the pause that follows it.
  void Account(const SplitProgress& chunk, absl::Duration pause);
  bool WaitWhilePausedOrCancelled();
  void Sleep(absl::Duration duration, ThrottleLimit limit);
  void BookThrottled(absl::Duration time, ThrottleLimit limit)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  VmCore& vm_;
  const SplitRequest request_;
  const std::vector<GfnRange> ranges_;  // in the order of the split

  mutable Mutex mu_;
  CondVar changed_;
  Throttle throttle_ ABSL_GUARDED_BY(mu_);
  SplitProgress progress_ ABSL_GUARDED_BY(mu_);
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  bool paused_ ABSL_GUARDED_BY(mu_) = false;
  bool retuned_ ABSL_GUARDED_BY(mu_) = false;
  PaceEstimate estimate_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_SPLIT_JOB_H_
