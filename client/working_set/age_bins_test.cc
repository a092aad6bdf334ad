#include "client/working_set/age_bins.h"

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "client/working_set/picture.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

AgeBin Bin(int64_t generation, int min_seconds, int max_seconds) {
  return {.generation = generation,
          .min_age = absl::Seconds(min_seconds),
          .max_age = absl::Seconds(max_seconds),
          .page_count = 1,
          .size_bytes = 4096};
}

TEST(FoldBinsTest, FewBinsStayAsTheyAre) {
  const std::vector<AgeBin> bins = {Bin(3, 0, 1), Bin(2, 1, 1), Bin(1, 1, 9)};
  const std::vector<AgeBin> folded = FoldBins(bins, 3);
  ASSERT_EQ(folded.size(), 3u);
  EXPECT_EQ(GenerationsOf(folded[1]), "2");
}

TEST(FoldBinsTest, NeighboursBetweenTwoRoundAgesAreOne) {
  std::vector<AgeBin> bins = {Bin(5, 20, 25), Bin(4, 25, 29), Bin(3, 29, 30),
                              Bin(2, 30, 31), Bin(1, 31, 32)};
  bins.back().max_age = absl::InfiniteDuration();
  const std::vector<AgeBin> folded = FoldBins(bins, 4);
  ASSERT_EQ(folded.size(), 2u);
  EXPECT_EQ(GenerationsOf(folded[0]), "3-5");
  EXPECT_EQ(folded[0].min_age, absl::Seconds(20));
  EXPECT_EQ(folded[0].max_age, absl::Seconds(30));
  EXPECT_EQ(folded[0].page_count, 3);
  EXPECT_EQ(folded[0].size_bytes, 3 * 4096);
  EXPECT_EQ(GenerationsOf(folded[1]), "1-2");
  EXPECT_EQ(folded[1].max_age, absl::InfiniteDuration());
}

}  // namespace
}  // namespace mmud::client
