// Limits a vCPU to a number of accesses per second.

#ifndef MMU_CORE_GUEST_RATE_LIMITER_H_
#define MMU_CORE_GUEST_RATE_LIMITER_H_

#include <cstdint>

#include "mmu_core/base/clock.h"

namespace mmu {

// Computes how long to wait; it never waits itself. In any period T it admits
// at most rate * (T + burst) accesses plus one batch. Thread-compatible.
class RateLimiter {
 public:
  // A vCPU that fell behind may catch up this much.
  static constexpr int64_t kDefaultBurstNanos = 10'000'000;

  // `accesses_per_second` 0 means no limit. `clock` must outlive this.
  // REQUIRES: accesses_per_second is finite and >= 0, burst_nanos >= 0.
  RateLimiter(const Clock& clock, double accesses_per_second,
              int64_t burst_nanos = kDefaultBurstNanos);

  // Takes the next `accesses` from the budget and returns the nanoseconds (>=
  // 0) to wait before doing them.
  int64_t Reserve(uint64_t accesses);

  // Sets the rate from the next Reserve on; drops the credit and debt so far.
  void SetRate(double accesses_per_second);
  double accesses_per_second() const { return accesses_per_second_; }

 private:
  const Clock& clock_;
  const int64_t burst_nanos_;
  double accesses_per_second_ = 0;
  int64_t due_nanos_ = 0;    // when the next batch may start
  double due_fraction_ = 0;  // the part of a nanosecond left over, in [0, 1)
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_RATE_LIMITER_H_
