#include "client/working_set/age_text.h"

#include <algorithm>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

TEST(AgeTextTest, AnAgeHasAtMostTwoUnits) {
  EXPECT_EQ(FormatAge(absl::ZeroDuration()), "0s");
  EXPECT_EQ(FormatAge(absl::Microseconds(900)), "0s");
  EXPECT_EQ(FormatAge(absl::Milliseconds(250)), "250ms");
  EXPECT_EQ(FormatAge(absl::Milliseconds(1999)), "1s");
  EXPECT_EQ(FormatAge(absl::Seconds(59)), "59s");
  EXPECT_EQ(FormatAge(absl::Seconds(60)), "1m");
  EXPECT_EQ(FormatAge(absl::Seconds(65)), "1m05s");
  EXPECT_EQ(FormatAge(absl::Seconds(3599)), "59m59s");
  EXPECT_EQ(FormatAge(absl::Seconds(3659)), "1h");
  EXPECT_EQ(FormatAge(absl::Minutes(125)), "2h05m");
  EXPECT_EQ(FormatAge(absl::Hours(24)), "1d");
  EXPECT_EQ(FormatAge(absl::Hours(76)), "3d04h");
  EXPECT_EQ(FormatAge(-absl::Seconds(2)), "-2s");
  EXPECT_EQ(FormatAge(absl::InfiniteDuration()), "forever");
}

TEST(AgeTextTest, ARangeHasItsEndsOrOne) {
  EXPECT_EQ(FormatAgeRange(absl::Seconds(10), absl::Minutes(1)), "10s - 1m");
  EXPECT_EQ(FormatAgeRange(absl::Seconds(10), absl::InfiniteDuration()),
            "over 10s");
  EXPECT_EQ(FormatAgeRange(absl::Seconds(10), absl::Seconds(10)), "10s");
}

TEST(AgeTextTest, RoundAgesAscend) {
  EXPECT_TRUE(std::is_sorted(RoundAges().begin(), RoundAges().end()));
}

}  // namespace
}  // namespace mmud::client
