#include "mmu_core/base/clock.h"

#include <cstdint>

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
}

}  // namespace
}  // namespace mmu
