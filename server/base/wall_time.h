// The time of day, for people to read.

#ifndef SERVER_BASE_WALL_TIME_H_
#define SERVER_BASE_WALL_TIME_H_

#include <chrono>
#include <cstdint>

#include "absl/time/time.h"
#include "mmu_core/base/clock.h"

namespace mmud {

// A time of the wall clock, which shows in answers, log lines and metrics when
// something happened. It can neither be compared nor subtracted: the clock may
// be set while the daemon runs, and a duration measured with it would then be
// wrong by hours. Everything that lasts, expires or has a rate is an
// mmu::MonotonicTime. A value.
class WallTime {
 public:
  // The only place where the daemon reads this clock (//tests/layering). It
  // does not use absl::Now(), which follows a clock that was set only seconds
  // later.
  static WallTime Now() {
    return FromUnixNanos(
        std::chrono::duration_cast<std::chrono::nanoseconds>(
            std::chrono::system_clock::now().time_since_epoch())
            .count());
  }
  // The wall clock's time at `time`, by the clock as it is set now.
  static WallTime Of(mmu::MonotonicTime time) {
    return Now().Later(time - mmu::MonotonicTime::Now());
  }
  // The wall clock's time `time` after this, if the clock is not set meanwhile.
  WallTime Later(absl::Duration time) const {
    return WallTime(unix_nanos_ + absl::ToInt64Nanoseconds(time));
  }
  static constexpr WallTime FromUnixNanos(int64_t nanos) {
    return WallTime(nanos);
  }

  constexpr int64_t unix_nanos() const { return unix_nanos_; }

 private:
  explicit constexpr WallTime(int64_t nanos) : unix_nanos_(nanos) {}

  int64_t unix_nanos_;
};

}  // namespace mmud

#endif  // SERVER_BASE_WALL_TIME_H_
