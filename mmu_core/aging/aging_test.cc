#include "mmu_core/aging/aging.h"

#include <cstdint>

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

TEST(AgingTest, OnlyMappedPagesBecomeYoung) {
  AgeResult result;
  result.young = {0b0001, 0b100};
  result.mapped = {~uint64_t{0b0100}, 0b111};
  MarkYoung(result, 65);
  EXPECT_EQ(result.young[0], ~uint64_t{0b0100});
  EXPECT_EQ(result.young[1], 0b101u);
  EXPECT_EQ(result.young_page_count, 65u);
  EXPECT_EQ(result.old_page_count, 1u);
}

}  // namespace
}  // namespace mmu
