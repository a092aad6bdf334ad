#include "mmu_core/guest/rate_limiter.h"

#include <cstdint>

#include "gtest/gtest.h"
#include "mmu_core/testing/fake_clock.h"

namespace mmu {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

TEST(RateLimiterTest, ZeroMeansNoLimit) {
  FakeClock clock;
  RateLimiter limiter(clock, 0);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(limiter.Reserve(1u << 30), 0);
}

TEST(RateLimiterTest, EachBatchWaitsForTheTimeOfTheOnesBefore) {
  FakeClock clock;
  RateLimiter limiter(clock, 1000, /*burst_nanos=*/0);
  EXPECT_EQ(limiter.Reserve(100), 0);
  EXPECT_EQ(limiter.Reserve(1), kSecond / 10);
  EXPECT_EQ(limiter.Reserve(1), kSecond / 10 + kSecond / 1000);
}

TEST(RateLimiterTest, ObedientCallerGetsTheRateExactly) {
  for (const double rate : {3.0, 999.0, 1e6, 7e8}) {
    FakeClock clock;
    RateLimiter limiter(clock, rate);
    const int64_t start = clock.NowNanos();
    uint64_t accesses = 0;
    for (int i = 0; i < 10000; ++i) {
      const uint64_t batch = 1 + i % 256;
      clock.Advance(limiter.Reserve(batch));
      accesses += batch;
    }
    clock.Advance(limiter.Reserve(1));
    const double seconds =
        static_cast<double>(clock.NowNanos() - start) / kSecond;
    EXPECT_NEAR(static_cast<double>(accesses) / seconds / rate, 1.0, 1e-6)
        << rate;
  }
}

TEST(RateLimiterTest, LateCallerCatchesUpButOnlyTheBurst) {
  FakeClock clock;
  RateLimiter limiter(clock, 1000, /*burst_nanos=*/kSecond / 100);
  EXPECT_EQ(limiter.Reserve(1), 0);
  clock.Advance(100 * kSecond);
  // A burst of 10 ms at 1000 per second is ten accesses.
  for (int i = 0; i < 11; ++i) EXPECT_EQ(limiter.Reserve(1), 0) << i;
  EXPECT_EQ(limiter.Reserve(1), kSecond / 1000);
}

TEST(RateLimiterTest, NewRateForgetsOldDebt) {
  FakeClock clock;
  RateLimiter limiter(clock, 1, 0);
  limiter.Reserve(3600);
  EXPECT_EQ(limiter.Reserve(1), 3600 * kSecond);
  limiter.SetRate(1000);
  EXPECT_EQ(limiter.Reserve(1), 0);
  EXPECT_EQ(limiter.Reserve(1), kSecond / 1000);
}

TEST(RateLimiterTest, AbsurdBatchesNeitherOverflowNorLookFree) {
  FakeClock clock;
  RateLimiter limiter(clock, 1e-9, 0);
  for (int i = 0; i < 100; ++i) {
    const int64_t wait = limiter.Reserve(~uint64_t{0});
    EXPECT_GE(wait, i == 0 ? 0 : kSecond);
  }
}

}  // namespace
}  // namespace mmu
