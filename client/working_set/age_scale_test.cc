#include "client/working_set/age_scale.h"

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/working_set/picture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

using ::testing::ElementsAre;

WorkingSetPicture BinsOf(const std::vector<absl::Duration>& ages) {
  WorkingSetPicture picture;
  for (const absl::Duration age : ages)
    picture.bins.push_back({.min_age = age});
  return picture;
}

std::vector<std::string> LabelsOf(const AgeScale& scale) {
  std::vector<std::string> labels;
  for (int i = 0; i < scale.steps(); ++i) labels.push_back(scale.LabelOf(i));
  return labels;
}

TEST(AgeScaleTest, BoundsAreRoundAndOnlyBetweenAges) {
  const AgeScale scale(BinsOf({absl::ZeroDuration(), absl::Seconds(11),
                               absl::Seconds(13), absl::Minutes(7)}));
  EXPECT_THAT(LabelsOf(scale),
              ElementsAre("under 10s", "10s to 5m", "5m and more"));
  EXPECT_EQ(scale.StepOf(absl::ZeroDuration()), 0);
  EXPECT_EQ(scale.StepOf(absl::Milliseconds(9999)), 0);
  EXPECT_EQ(scale.StepOf(absl::Seconds(10)), 1);
  EXPECT_EQ(scale.StepOf(absl::Minutes(5)), 2);
  EXPECT_EQ(scale.StepOf(absl::InfiniteDuration()), 2);
}

TEST(AgeScaleTest, CellsCountToo) {
  WorkingSetPicture picture = BinsOf({absl::ZeroDuration()});
  picture.heat.push_back(
      {.cells = {{.kind = HeatCell::Kind::kAged, .age = absl::Minutes(3)},
                 {.kind = HeatCell::Kind::kNeverYoung, .age = absl::Hours(1)},
                 {.kind = HeatCell::Kind::kAbsent, .age = absl::Hours(1)}}});
  EXPECT_THAT(LabelsOf(AgeScale(picture)),
              ElementsAre("under 2m", "2m and more"));
}

TEST(AgeScaleTest, ManyAgesShareEightSteps) {
  std::vector<absl::Duration> ages;
  for (int i = 0; i < 30; ++i) ages.push_back(absl::Milliseconds(1) * (1 << i));
  EXPECT_THAT(LabelsOf(AgeScale(BinsOf(ages))),
              ElementsAre("under 10ms", "10ms to 1s", "1s to 10s", "10s to 2m",
                          "2m to 30m", "30m to 6h", "6h to 2d", "2d and more"));
}

TEST(AgeScaleTest, AgesOfOneClassAreOneStep) {
  EXPECT_THAT(LabelsOf(AgeScale(WorkingSetPicture())), ElementsAre("any age"));
  EXPECT_THAT(LabelsOf(AgeScale(BinsOf({absl::Seconds(3), absl::Seconds(4)}))),
              ElementsAre("any age"));
}

}  // namespace
}  // namespace mmud::client
