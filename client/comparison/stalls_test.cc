#include "client/comparison/stalls.h"

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/mmu_client/time_conversion.h"
#include "gtest/gtest.h"
#include "mmud/v1/common.pb.h"

namespace mmud::client {
namespace {

// Buckets up to 1 us, 4 us and without an upper bound.
v1::DurationHistogram Histogram(const std::vector<int64_t>& counts,
                                absl::Duration total = absl::ZeroDuration()) {
  v1::DurationHistogram histogram;
  for (const int64_t count : counts) {
    histogram.add_buckets()->set_observation_count(count);
    histogram.set_observation_count(histogram.observation_count() + count);
  }
  *histogram.mutable_buckets(0)->mutable_upper_bound() =
      ToProto(absl::Microseconds(1));
  *histogram.mutable_buckets(1)->mutable_upper_bound() =
      ToProto(absl::Microseconds(4));
  *histogram.mutable_total() = ToProto(total);
  return histogram;
}

void ExpectBucket(const v1::DurationHistogram& histogram, int64_t per_mille,
                  absl::Duration more_than, absl::Duration at_most) {
  const std::optional<Percentile> percentile =
      PercentileOf(histogram, per_mille);
  ASSERT_TRUE(percentile.has_value());
  EXPECT_EQ(percentile->more_than, more_than) << per_mille;
  EXPECT_EQ(percentile->at_most, at_most) << per_mille;
}

TEST(StallsTest, APercentileIsTheBucketOfItsRank) {
  const absl::Duration us = absl::Microseconds(1);
  // The 500th, the 990th and the 999th of 1000 observations.
  const v1::DurationHistogram at_the_edge = Histogram({500, 490, 10});
  ExpectBucket(at_the_edge, 500, absl::ZeroDuration(), us);
  ExpectBucket(at_the_edge, 501, us, 4 * us);
  ExpectBucket(at_the_edge, 990, us, 4 * us);
  ExpectBucket(at_the_edge, 999, 4 * us, absl::InfiniteDuration());
  // Ranks are rounded up: the 2nd of 3, and the 3rd of 3.
  ExpectBucket(Histogram({1, 1, 1}), 500, us, 4 * us);
  ExpectBucket(Histogram({1, 1, 1}), 990, 4 * us, absl::InfiniteDuration());
}

TEST(StallsTest, EmptyBucketsBelowAreSkipped) {
  ExpectBucket(Histogram({0, 0, 7}), 500, absl::Microseconds(4),
               absl::InfiniteDuration());
  ExpectBucket(Histogram({0, 7, 0}), 999, absl::Microseconds(1),
               absl::Microseconds(4));
}

TEST(StallsTest, WithoutObservationsThereIsNoPercentile) {
  EXPECT_FALSE(PercentileOf({}, 500).has_value());
  EXPECT_FALSE(PercentileOf(Histogram({0, 0, 0}), 500).has_value());
}

TEST(StallsTest, ASumHasTheObservationsOfBoth) {
  const v1::DurationHistogram a = Histogram({1, 2, 3}, absl::Seconds(1.5));
  const v1::DurationHistogram b = Histogram({10, 20, 30}, absl::Seconds(2));
  const absl::StatusOr<v1::DurationHistogram> sum = Sum(a, b);
  ASSERT_TRUE(sum.ok()) << sum.status();
  EXPECT_EQ(sum->DebugString(),
            Histogram({11, 22, 33}, absl::Seconds(3.5)).DebugString());
  EXPECT_EQ(Sum(a, {})->DebugString(), a.DebugString());
  EXPECT_EQ(Sum({}, b)->DebugString(), b.DebugString());
}

TEST(StallsTest, HistogramsWithDifferentBucketsHaveNoSum) {
  v1::DurationHistogram other = Histogram({1, 2, 3});
  other.mutable_buckets(1)->mutable_upper_bound()->set_nanos(5000);
  EXPECT_EQ(Sum(Histogram({1, 2, 3}), other).status().code(),
            absl::StatusCode::kInternal);
  other.add_buckets();
  EXPECT_EQ(Sum(Histogram({1, 2, 3}), other).status().code(),
            absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace mmud::client
