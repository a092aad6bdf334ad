// How long paced work still takes.

#ifndef MMU_CORE_VM_JOBS_PACE_ESTIMATE_H_
#define MMU_CORE_VM_JOBS_PACE_ESTIMATE_H_

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"
#include "mmu_core/base/clock.h"

namespace mmu {

// Takes the average of the steps made at the present pace. The pause that
// follows a step is a part of what the step costs and counts from its beginning
// on: during a long pause the estimate would otherwise be that of work without
// any. Thread-compatible.
class PaceEstimate {
 public:
  // A step went through `bytes` in `time`; a pause of `pause` begins now.
  void AddStep(int64_t bytes, absl::Duration time, absl::Duration pause,
               MonotonicTime now) {
    ++steps_;
    bytes_ += bytes;
    time_ += time + pause;
    pause_end_ = now + pause;
    pausing_ = true;
  }

  // The pause is over, perhaps not when it was planned to be.
  void EndPause(MonotonicTime now) {
    if (pausing_) time_ += now - pause_end_;
    pausing_ = false;
  }

  // The pace is another one from now on.
  void Reset() { *this = PaceEstimate(); }

  // Time for the `left` of `total` bytes, the rest of the present pause
  // included. InfiniteDuration while too little is done to tell: fewer than
  // kMinSteps steps and less than an eighth of all.
  absl::Duration Remaining(int64_t left, int64_t total,
                           MonotonicTime now) const {
    if (bytes_ <= 0 || (steps_ < kMinSteps && bytes_ < total / 8)) {
      return absl::InfiniteDuration();
    }
    const absl::Duration work =
        std::max(time_, absl::ZeroDuration()) *
        (static_cast<double>(left) / static_cast<double>(bytes_));
    return pausing_ ? work + std::max(pause_end_ - now, absl::ZeroDuration())
                    : work;
  }

 private:
  // One step may be an exception, for example the first one, which finds cold
  // caches.
  static constexpr int64_t kMinSteps = 4;

  int64_t steps_ = 0;
  int64_t bytes_ = 0;
  absl::Duration time_;  // of steps and pauses, the present one as planned
  MonotonicTime pause_end_;
  bool pausing_ = false;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_PACE_ESTIMATE_H_
