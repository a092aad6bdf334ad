#include "bench/working_set_accuracy/accuracy.h"

#include <cstdint>
#include <optional>
#include <set>

#include "gtest/gtest.h"

namespace mmu::bench {
namespace {

SetOverlap OverlapOf(const std::set<int>& measured,
                     const std::set<int>& truth) {
  SetOverlap overlap;
  for (int page = 0; page < 10; ++page) {
    overlap.Count(measured.contains(page), truth.contains(page));
  }
  return overlap;
}

TEST(AccuracyTest, CountsTheMeasuredTheTrueAndTheCommonPages) {
  EXPECT_EQ(OverlapOf({1, 2, 3, 4}, {3, 4, 5}), (SetOverlap{4, 3, 2}));
}

TEST(AccuracyTest, EqualSetsAreExact) {
  const SetOverlap equal = OverlapOf({2, 7}, {2, 7});
  EXPECT_EQ(Precision(equal), 1.0);
  EXPECT_EQ(Recall(equal), 1.0);
}

TEST(AccuracyTest, AWrongPageCostsPrecisionAndAMissingOneRecall) {
  const SetOverlap wrong = OverlapOf({1, 2, 3, 4}, {1, 2, 3});
  EXPECT_EQ(Precision(wrong), 0.75);
  EXPECT_EQ(Recall(wrong), 1.0);
  const SetOverlap missing = OverlapOf({1, 2, 3}, {1, 2, 3, 4});
  EXPECT_EQ(Precision(missing), 1.0);
  EXPECT_EQ(Recall(missing), 0.75);
  const SetOverlap disjoint = OverlapOf({1, 2}, {3});
  EXPECT_EQ(Precision(disjoint), 0.0);
  EXPECT_EQ(Recall(disjoint), 0.0);
}

TEST(AccuracyTest, NothingHasNoPrecisionAndNoRecall) {
  const SetOverlap nothing = OverlapOf({}, {});
  EXPECT_EQ(Precision(nothing), std::nullopt);
  EXPECT_EQ(Recall(nothing), std::nullopt);
  const SetOverlap none_measured = OverlapOf({}, {1});
  EXPECT_EQ(Precision(none_measured), std::nullopt);
  EXPECT_EQ(Recall(none_measured), 0.0);
  const SetOverlap none_true = OverlapOf({1}, {});
  EXPECT_EQ(Precision(none_true), 0.0);
  EXPECT_EQ(Recall(none_true), std::nullopt);
}

TEST(AccuracyTest, AnErrorIsBelowZeroIfTheEstimateIsTooLow) {
  EXPECT_EQ(RelativeError(75, 100), -0.25);
  EXPECT_EQ(RelativeError(100, 100), 0.0);
  EXPECT_EQ(RelativeError(150, 100), 0.5);
  EXPECT_EQ(RelativeError(0, 100), -1.0);
  EXPECT_EQ(RelativeError(0, 0), std::nullopt);
  EXPECT_EQ(RelativeError(1, 0), std::nullopt);
}

TEST(AccuracyTest, AMeanLeavesOutWhatIsNotDefined) {
  Mean mean;
  EXPECT_EQ(mean.Get(), std::nullopt);
  mean.Add(std::nullopt);
  EXPECT_EQ(mean.Get(), std::nullopt);
  mean.Add(0.5);
  mean.Add(std::nullopt);
  mean.Add(-1.0);
  EXPECT_EQ(mean.Get(), -0.25);
}

}  // namespace
}  // namespace mmu::bench
