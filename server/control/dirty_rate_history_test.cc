#include "server/control/dirty_rate_history.h"

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "server/base/errors.h"

namespace mmud {
namespace {

DirtySample At(int seconds, uint64_t pages, uint64_t faults = 0) {
  return {mmu::MonotonicTime() + absl::Seconds(seconds), {pages, faults}, {}};
}

TEST(DirtyRateHistory, UsesTheNewestSampleOldEnough) {
  DirtyRateHistory history;
  history.Add(At(0, 0));
  history.Add(At(1, 100, 10));
  history.Add(At(2, 200, 20));
  const auto rate = history.Rate(At(4, 600, 50), absl::Seconds(2));
  ASSERT_TRUE(rate.ok());
  EXPECT_EQ(rate->observed, absl::Seconds(2));
  EXPECT_DOUBLE_EQ(rate->vm.pages_per_second, 200);
  EXPECT_DOUBLE_EQ(rate->vm.write_faults_per_second, 15);
  EXPECT_EQ(history.Rate(At(4, 600), absl::Milliseconds(2500))->observed,
            absl::Seconds(3));
}

TEST(DirtyRateHistory, TellsTheVcpusApart) {
  DirtyRateHistory history;
  DirtySample sample = At(0, 0);
  sample.vcpus = {{100, 10}, {200, 20}};
  history.Add(sample);
  sample = At(2, 0);
  sample.vcpus = {{100, 10}, {260, 50}};
  const auto rate = history.Rate(sample, absl::Seconds(1));
  ASSERT_TRUE(rate.ok());
  ASSERT_EQ(rate->vcpus.size(), 2u);
  EXPECT_DOUBLE_EQ(rate->vcpus[0].pages_per_second, 0);
  EXPECT_DOUBLE_EQ(rate->vcpus[1].pages_per_second, 30);
  EXPECT_DOUBLE_EQ(rate->vcpus[1].write_faults_per_second, 15);
}

TEST(DirtyRateHistory, TellsForWhichPartOfTheTimeVcpusHadNoRoom) {
  DirtyRateHistory history;
  DirtySample sample = At(0, 0);
  sample.vm.ring_full_nanos = 7;
  sample.vcpus = {{.ring_full_nanos = 7}, {}};
  history.Add(sample);
  sample = At(4, 0);
  sample.vm.ring_full_nanos = 3'000'000'007;
  sample.vcpus = {{.ring_full_nanos = 3'000'000'007}, {}};
  const auto rate = history.Rate(sample, absl::Seconds(1));
  ASSERT_TRUE(rate.ok());
  EXPECT_DOUBLE_EQ(rate->vm.ring_full_ratio, 3.0 / 8);
  EXPECT_DOUBLE_EQ(rate->vcpus[0].ring_full_ratio, 0.75);
  EXPECT_DOUBLE_EQ(rate->vcpus[1].ring_full_ratio, 0);
}

TEST(DirtyRateHistory, SaysHowLongToWaitForEnoughHistory) {
  DirtyRateHistory history;
  EXPECT_FALSE(history.Rate(At(4, 0), absl::Seconds(1)).ok());
  history.Add(At(2, 0));
  const auto rate = history.Rate(At(4, 0), absl::Seconds(10));
  EXPECT_EQ(rate.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(mmu::DetailOf(rate.status()).reason,
            mmu::Reason::kInsufficientHistory);
  EXPECT_EQ(ApiDetailOf(rate.status()).retry_delay, absl::Seconds(8));
}

TEST(DirtyRateHistory, RestartForgets) {
  DirtyRateHistory history;
  history.Add(At(0, 0));
  history.Restart(At(5, 100));
  EXPECT_FALSE(history.Rate(At(6, 100), absl::Seconds(3)).ok());
  EXPECT_DOUBLE_EQ(
      history.Rate(At(6, 130), absl::Seconds(1))->vm.pages_per_second, 30);
}

TEST(DirtyRateHistory, KeepsTheLongestWindowAndNotMuchMore) {
  DirtyRateHistory history;
  for (int i = 0; i <= 2000; ++i) history.Add(At(i, i));
  EXPECT_TRUE(history.Rate(At(2000, 2000), absl::Minutes(10)).ok());
  EXPECT_FALSE(history.Rate(At(2000, 2000), absl::Minutes(11)).ok());
}

}  // namespace
}  // namespace mmud
