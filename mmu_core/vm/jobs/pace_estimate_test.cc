#include "mmu_core/vm/jobs/pace_estimate.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"

namespace mmu {
namespace {

constexpr absl::Duration kSecond = absl::Seconds(1);

MonotonicTime At(int64_t seconds) {
  return MonotonicTime::FromNanos(seconds * 1'000'000'000);
}

TEST(PaceEstimateTest, NothingIsKnownUntilAFewStepsAreMade) {
  PaceEstimate estimate;
  EXPECT_EQ(estimate.Remaining(100, 100, At(0)), absl::InfiniteDuration());
  for (int i = 1; i <= 3; ++i) {
    estimate.AddStep(/*bytes=*/1, kSecond, /*pause=*/{}, At(i));
    EXPECT_EQ(estimate.Remaining(100 - i, 100, At(i)),
              absl::InfiniteDuration());
  }
  estimate.AddStep(1, kSecond, {}, At(4));
  EXPECT_EQ(estimate.Remaining(96, 100, At(4)), 96 * kSecond);
}

TEST(PaceEstimateTest, FewStepsAreEnoughOfLittleWork) {
  PaceEstimate estimate;
  estimate.AddStep(1, kSecond, {}, At(1));
  EXPECT_EQ(estimate.Remaining(7, 8, At(1)), 7 * kSecond);
}

TEST(PaceEstimateTest, PauseCountsFromItsBeginningAndItsRestIsStillToCome) {
  PaceEstimate estimate;
  // A step takes one second. Of the pause of nine seconds after it, three are
  // over.
  estimate.AddStep(1, kSecond, 9 * kSecond, At(1));
  EXPECT_EQ(estimate.Remaining(1, 2, At(1)), (10 + 9) * kSecond);
  EXPECT_EQ(estimate.Remaining(1, 2, At(4)), (10 + 6) * kSecond);
  // The pause lasts longer than planned.
  EXPECT_EQ(estimate.Remaining(1, 2, At(99)), 10 * kSecond);
}

TEST(PaceEstimateTest, PauseThatEndsEarlyOrLateCountsAsLongAsItWas) {
  PaceEstimate estimate;
  estimate.AddStep(1, kSecond, 9 * kSecond, At(1));
  estimate.EndPause(At(3));
  EXPECT_EQ(estimate.Remaining(1, 2, At(3)), 3 * kSecond);
  estimate.AddStep(1, kSecond, {}, At(4));
  estimate.EndPause(At(5));
  EXPECT_EQ(estimate.Remaining(2, 4, At(5)), 5 * kSecond);
}

TEST(PaceEstimateTest, PauseWithoutAnEndHasNoEstimate) {
  PaceEstimate estimate;
  estimate.AddStep(1, kSecond, absl::InfiniteDuration(), At(1));
  EXPECT_EQ(estimate.Remaining(1, 2, At(1)), absl::InfiniteDuration());
}

TEST(PaceEstimateTest, AnotherPaceBeginsAnew) {
  PaceEstimate estimate;
  for (int i = 0; i < 8; ++i) estimate.AddStep(1, kSecond, kSecond, At(0));
  estimate.Reset();
  EXPECT_EQ(estimate.Remaining(92, 100, At(0)), absl::InfiniteDuration());
  // The end of an earlier pause changes nothing.
  estimate.EndPause(At(100));
  for (int i = 0; i < 4; ++i) estimate.AddStep(1, 3 * kSecond, {}, At(0));
  EXPECT_EQ(estimate.Remaining(10, 100, At(0)), 30 * kSecond);
}

}  // namespace
}  // namespace mmu
