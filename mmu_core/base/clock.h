// Clocks passed as arguments, so that tests control the time.
//
// Only the monotonic clock measures durations. The wall clock tells people when
// something happened, and an administrator or NTP may set it forwards and
// backwards while the program runs. Durations, expiry, pacing and rates use the
// monotonic clock, whose one type is MonotonicTime. Nothing converts between
// MonotonicTime and the wall clock's absl::Time, and mmu_core never reads a
// wall clock (//tests/layering).

#ifndef MMU_CORE_BASE_CLOCK_H_
#define MMU_CORE_BASE_CLOCK_H_

#include <cstdint>

#include "absl/time/time.h"

namespace mmu {

// A point of the monotonic clock. Its zero has no meaning; only differences
// have. A value.
class MonotonicTime {
 public:
  // The zero of the clock.
  constexpr MonotonicTime() = default;
  // Deleted: a time of the wall clock is no MonotonicTime.
  MonotonicTime(absl::Time) = delete;

  // The time of Clock::Real(). Never less than an earlier result in the same
  // thread; setting the time of day does not affect it.
  static MonotonicTime Now();

  static constexpr MonotonicTime FromNanos(int64_t nanos) {
    return MonotonicTime(absl::Nanoseconds(nanos));
  }
  // A time after (or before) every other time; adding to it does not change it.
  static constexpr MonotonicTime InfiniteFuture() {
    return MonotonicTime(absl::InfiniteDuration());
  }
  static constexpr MonotonicTime InfinitePast() {
    return MonotonicTime(-absl::InfiniteDuration());
  }

  MonotonicTime& operator+=(absl::Duration by) {
    since_zero_ += by;
    return *this;
  }
  MonotonicTime& operator-=(absl::Duration by) {
    since_zero_ -= by;
    return *this;
  }
  friend MonotonicTime operator+(MonotonicTime time, absl::Duration by) {
    return time += by;
  }
  friend MonotonicTime operator-(MonotonicTime time, absl::Duration by) {
    return time -= by;
  }
  friend absl::Duration operator-(MonotonicTime to, MonotonicTime from) {
    return to.since_zero_ - from.since_zero_;
  }
  friend bool operator==(MonotonicTime a, MonotonicTime b) {
    return a.since_zero_ == b.since_zero_;
  }
  friend bool operator<(MonotonicTime a, MonotonicTime b) {
    return a.since_zero_ < b.since_zero_;
  }
  friend bool operator>(MonotonicTime a, MonotonicTime b) { return b < a; }
  friend bool operator<=(MonotonicTime a, MonotonicTime b) { return !(b < a); }
  friend bool operator>=(MonotonicTime a, MonotonicTime b) { return !(a < b); }

 private:
  explicit constexpr MonotonicTime(absl::Duration since_zero)
      : since_zero_(since_zero) {}

  absl::Duration since_zero_;
};

// A monotonic clock. Implementations are thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  // Nanoseconds. Never less than an earlier result in the same thread.
  virtual int64_t NowNanos() const = 0;
  MonotonicTime Now() const { return MonotonicTime::FromNanos(NowNanos()); }

  // The steady clock of this machine. Lives forever.
  static Clock& Real();
};

inline MonotonicTime MonotonicTime::Now() { return Clock::Real().Now(); }

}  // namespace mmu

#endif  // MMU_CORE_BASE_CLOCK_H_
