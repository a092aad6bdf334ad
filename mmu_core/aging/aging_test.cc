#include "mmu_core/aging/aging.h"

#include "gtest/gtest.h"

namespace mmu {
namespace {

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
