#include "mmu_core/aging/aging.h"

#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mmu {
namespace {

using ::testing::ElementsAre;

TEST(AgingTest, PagesAreSetAcrossWords) {
  std::vector<uint64_t> bitmap(4);
  SetPages(bitmap, 62, 2 + 64 + 1);
  EXPECT_THAT(bitmap, ElementsAre(uint64_t{3} << 62, ~uint64_t{0}, 1, 0));
  SetPages(bitmap, 255, 1);
  EXPECT_EQ(bitmap[3], uint64_t{1} << 63);
  SetPages(bitmap, 0, 0);
  EXPECT_EQ(bitmap[0], uint64_t{3} << 62);
}

TEST(AgingTest, APageIsOldIfItIsMappedAndNobodyFoundItYoung) {
  AgeResult result;
  result.young = {0b0011, 0b1};
  result.mapped = {0b1111, 0b1};
  result.young_page_count = 77;
  result.old_page_count = 77;
  CountPages(result);
  EXPECT_EQ(result.young_page_count, 3u);
  EXPECT_EQ(result.old_page_count, 2u);
}

}  // namespace
}  // namespace mmu
