#include "mmu_core/base/clock.h"

#include <cstdint>
#include <functional>
#include <type_traits>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/testing/fake_clock.h"

namespace mmu {
namespace {

TEST(ClockTest, RealTimeNeverGoesBack) {
  const Clock& clock = Clock::Real();
  int64_t last = clock.NowNanos();
  for (int i = 0; i < 1000; ++i) {
    const int64_t now = clock.NowNanos();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(ClockTest, RealTimeMovesOnItsOwn) {
  const int64_t start = Clock::Real().NowNanos();
  while (Clock::Real().NowNanos() == start) {
  }
  EXPECT_GT(Clock::Real().NowNanos(), start);
}

TEST(ClockTest, FakeTimeMovesOnlyWhenTold) {
  FakeClock clock(5);
  EXPECT_EQ(clock.NowNanos(), 5);
  clock.Advance(37);
  EXPECT_EQ(clock.NowNanos(), 42);
  EXPECT_EQ(clock.NowNanos(), 42);
  EXPECT_EQ(clock.Now(), MonotonicTime::FromNanos(42));
}

TEST(MonotonicTimeTest, AndTheWallClockDoNotMix) {
  static_assert(!std::is_constructible_v<MonotonicTime, absl::Time>);
  static_assert(!std::is_assignable_v<MonotonicTime&, absl::Time>);
  static_assert(!std::is_constructible_v<absl::Time, MonotonicTime>);
  static_assert(!std::is_invocable_v<std::minus<>, MonotonicTime, absl::Time>);
  static_assert(!std::is_invocable_v<std::minus<>, absl::Time, MonotonicTime>);
  static_assert(!std::is_invocable_v<std::less<>, MonotonicTime, absl::Time>);
  static_assert(!std::is_invocable_v<std::less<>, absl::Time, MonotonicTime>);
  // Two values of MonotonicTime do mix: their difference is a duration.
  static_assert(std::is_invocable_r_v<absl::Duration, std::minus<>,
                                      MonotonicTime, MonotonicTime>);
}

TEST(MonotonicTimeTest, CountsInDurations) {
  const MonotonicTime start = MonotonicTime::FromNanos(1'000);
  MonotonicTime time = start + absl::Seconds(2);
  EXPECT_EQ(time - start, absl::Seconds(2));
  EXPECT_EQ(start - time, -absl::Seconds(2));
  EXPECT_TRUE(start < time && start <= time && time > start && time >= start);
  EXPECT_EQ(time - absl::Seconds(2), start);
  time -= absl::Nanoseconds(1'999'999'999);
  EXPECT_EQ(time, MonotonicTime::FromNanos(1'001));
}

TEST(MonotonicTimeTest, NeverStaysNever) {
  const MonotonicTime never = MonotonicTime::InfiniteFuture();
  EXPECT_EQ(MonotonicTime() + absl::InfiniteDuration(), never);
  EXPECT_EQ(never + absl::Hours(1), never);
  EXPECT_EQ(never - absl::Hours(1), never);
  EXPECT_LT(MonotonicTime::Now(), never);
  EXPECT_GT(MonotonicTime::Now(), MonotonicTime::InfinitePast());
  EXPECT_EQ(never - MonotonicTime::Now(), absl::InfiniteDuration());
}

}  // namespace
}  // namespace mmu
