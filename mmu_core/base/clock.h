// Time as a thing one is given, so that tests can move it.
//
// There are two kinds of time, and only one of them measures. The wall clock
// tells people when something happened; whoever keeps it sets it forwards and
// backwards while the program runs. What lasts, expires, is paced or has a
// rate is counted with the monotonic clock, and MonotonicTime is its one type:
// nothing converts between it and the wall clock's absl::Time, and mmu_core
// reads no wall clock at all (//tests/layering).

#ifndef MMU_CORE_BASE_CLOCK_H_
#define MMU_CORE_BASE_CLOCK_H_

#include <cstdint>

#include "absl/time/time.h"

namespace mmu {

// A point of the monotonic clock. Its zero has no meaning, only differences
// do. A value.
class MonotonicTime {
 public:
  // The clock's zero.
  constexpr MonotonicTime() = default;
  // Not a time of the wall clock.
  MonotonicTime(absl::Time) = delete;

  // As Clock::Real() has it. Never less than an earlier answer to the same
  // thread, and unmoved by whoever sets the time of day.
  static MonotonicTime Now();

  static constexpr MonotonicTime FromNanos(int64_t nanos) {
    return MonotonicTime(absl::Nanoseconds(nanos));
  }
  // After and before all others; they stay so whatever is added.
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

  // Nanoseconds; never less than an earlier answer to the same thread.
  virtual int64_t NowNanos() const = 0;
  MonotonicTime Now() const { return MonotonicTime::FromNanos(NowNanos()); }

  // The steady clock of this machine. Lives forever.
  static Clock& Real();
};

inline MonotonicTime MonotonicTime::Now() { return Clock::Real().Now(); }

}  // namespace mmu

#endif  // MMU_CORE_BASE_CLOCK_H_
