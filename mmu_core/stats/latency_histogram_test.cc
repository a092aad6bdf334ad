#include "mmu_core/stats/latency_histogram.h"

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace mmu {
namespace {

using Counts = decltype(LatencySnapshot().counts());

TEST(LatencyHistogramTest, BoundsArePowersOfFourAndThePromiseAndReachAnHour) {
  std::vector<int64_t> micros;
  for (int i = 0; i < kLatencyBounds; ++i) {
    EXPECT_EQ(LatencyBoundNanos(i) % 1000, 0);
    micros.push_back(LatencyBoundNanos(i) / 1000);
  }
  EXPECT_EQ(micros, (std::vector<int64_t>{
                        1, 4, 16, 64, 200, 256, 1'024, 4'096, 16'384, 65'536,
                        262'144, 1'048'576, 4'194'304, 16'777'216, 67'108'864,
                        268'435'456, 1'073'741'824, 4'294'967'296}));
  EXPECT_GE(LatencyBoundNanos(kLatencyBounds - 1),
            int64_t{3600} * 1'000'000'000);
}

TEST(LatencyHistogramTest, FineBoundsRiseAndHoldEveryBound) {
  for (int i = 1; i < kFineLatencyBounds; ++i) {
    EXPECT_GT(FineLatencyBoundNanos(i), FineLatencyBoundNanos(i - 1));
  }
  for (int i = 0; i < kFineLatencyBounds; ++i) {
    LatencyHistogram at;
    at.Record(FineLatencyBoundNanos(i));
    EXPECT_EQ(at.Snapshot().fine[i], 1u) << i;
    LatencyHistogram above;
    above.Record(FineLatencyBoundNanos(i) + 1);
    EXPECT_EQ(above.Snapshot().fine[i + 1], 1u) << i;
  }
}

TEST(LatencyHistogramTest, ValueAtABoundFallsBelowItAndOneMoreAbove) {
  for (int i = 0; i < kLatencyBounds; ++i) {
    LatencyHistogram histogram;
    histogram.Record(LatencyBoundNanos(i));
    histogram.Record(LatencyBoundNanos(i) + 1);
    Counts expected{};
    expected[i] = 1;
    expected[i + 1] = 1;
    EXPECT_EQ(histogram.Snapshot().counts(), expected) << i;
  }
  LatencyHistogram zero;
  zero.Record(0);
  EXPECT_EQ(zero.Snapshot().counts(), Counts{1});
}

TEST(LatencyHistogramTest, ASnapshotHasCountSumAndMaximum) {
  LatencyHistogram histogram;
  histogram.Record(0);
  histogram.Record(1'001);
  histogram.Record(LatencyBoundNanos(kLatencyBounds - 1) + 1);
  const LatencySnapshot snapshot = histogram.Snapshot();
  EXPECT_EQ(snapshot.count, 3u);
  EXPECT_EQ(snapshot.sum_nanos, 1'001 + 4'294'967'296'001);
  EXPECT_EQ(snapshot.max_nanos, 4'294'967'296'001);
}

TEST(LatencyHistogramTest, WeightCountsAsThatManyEvents) {
  LatencyHistogram histogram;
  histogram.Record(2'000, 64);
  const LatencySnapshot snapshot = histogram.Snapshot();
  EXPECT_EQ(snapshot.counts()[1], 64u);
  EXPECT_EQ(snapshot.count, 64u);
  EXPECT_EQ(snapshot.sum_nanos, 128'000);
  EXPECT_EQ(snapshot.max_nanos, 2'000);
}

TEST(LatencyHistogramTest, QuantileIsAtMostAQuarterAboveTheValue) {
  EXPECT_EQ(LatencyHistogram().Snapshot().QuantileNanos(0.5), 0);
  for (int64_t nanos = 1'001; nanos < 4'000'000'000'000; nanos += nanos / 7) {
    LatencyHistogram histogram;
    histogram.Record(nanos);
    histogram.Record(int64_t{1} << 50);
    const int64_t median = histogram.Snapshot().QuantileNanos(0.5);
    EXPECT_GE(median, nanos);
    EXPECT_LE(median, std::max<int64_t>(nanos + nanos / 4, nanos + 1'000));
  }
}

TEST(LatencyHistogramTest, QuantileCountsWeights) {
  LatencyHistogram histogram;
  histogram.Record(500, 99);
  histogram.Record(60'000);
  const LatencySnapshot snapshot = histogram.Snapshot();
  EXPECT_EQ(snapshot.QuantileNanos(0.0), 1'000);
  EXPECT_EQ(snapshot.QuantileNanos(0.5), 1'000);
  EXPECT_EQ(snapshot.QuantileNanos(0.99), 1'000);
  EXPECT_EQ(snapshot.QuantileNanos(0.999), 60'000) << "the maximum is known";
}

TEST(LatencyHistogramTest, QuantileInTheUnboundedBucketIsTheMaximum) {
  LatencyHistogram histogram;
  histogram.Record(9'000'000'000'000);
  EXPECT_EQ(histogram.Snapshot().QuantileNanos(0.5), 9'000'000'000'000);
}

TEST(LatencyHistogramTest, SinceIsWhatCameLater) {
  LatencyHistogram histogram;
  histogram.Record(500);
  const LatencySnapshot earlier = histogram.Snapshot();
  histogram.Record(70'000, 2);
  const LatencySnapshot since = histogram.Snapshot().Since(earlier);
  EXPECT_EQ(since.counts(), (Counts{0, 0, 0, 0, 2}));
  EXPECT_EQ(since.count, 2u);
  EXPECT_EQ(since.sum_nanos, 140'000);
}

TEST(LatencyHistogramTest, SnapshotsAddUp) {
  LatencyHistogram a;
  LatencyHistogram b;
  a.Record(500);
  b.Record(5'000, 3);
  LatencySnapshot sum = a.Snapshot();
  sum.Add(b.Snapshot());
  EXPECT_EQ(sum.counts(), (Counts{1, 0, 3}));
  EXPECT_EQ(sum.count, 4u);
  EXPECT_EQ(sum.sum_nanos, 15'500);
  EXPECT_EQ(sum.max_nanos, 5'000);
}

TEST(LatencyHistogramTest, NoValueIsLostBetweenThreads) {
  constexpr int kThreads = 4;
  constexpr int kValues = 10'000;
  LatencyHistogram histogram;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&histogram, t] {
      for (int i = 0; i < kValues; ++i) histogram.Record(1'000 * (t + 1));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const LatencySnapshot snapshot = histogram.Snapshot();
  EXPECT_EQ(snapshot.counts(), (Counts{kValues, 3 * kValues}));
  EXPECT_EQ(snapshot.sum_nanos, int64_t{10'000} * kValues);
  EXPECT_EQ(snapshot.max_nanos, 4'000);
}

}  // namespace
}  // namespace mmu
