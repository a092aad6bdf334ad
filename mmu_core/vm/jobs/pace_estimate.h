// An estimate of the remaining time of paced work.

#ifndef MMU_CORE_VM_JOBS_PACE_ESTIMATE_H_
#define MMU_CORE_VM_JOBS_PACE_ESTIMATE_H_

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"
#include "mmu_core/base/clock.h"

namespace mmu {

// Averages the steps made at the present pace. The pause after a step is part
// of the step's cost and counts from its beginning: otherwise the estimate
// during a long pause would be that of unpaced work. Thread-compatible.
class PaceEstimate {
 public:
  // Adds a step that processed `bytes` in `time`; a pause of `pause` begins
  // now.
  void AddStep(int64_t bytes, absl::Duration time, absl::Duration pause,
               MonotonicTime now) {
    ++steps_;
    bytes_ += bytes;
    time_ += time + pause;
    pause_end_ = now + pause;
    pausing_ = true;
  }

  // Ends the pause, perhaps not at the planned time.
  void EndPause(MonotonicTime now) {
    if (pausing_) time_ += now - pause_end_;
    pausing_ = false;
  }

  // Starts again, because the pace has changed.
  void Reset() { *this = PaceEstimate(); }

  // The time for the `left` of `total` bytes, including the rest of the present
  // pause. InfiniteDuration while too little is done for an estimate: fewer
  // than kMinSteps steps and less than an eighth of the total.
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
  // One step may be atypical, for example the first one, which finds cold
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
