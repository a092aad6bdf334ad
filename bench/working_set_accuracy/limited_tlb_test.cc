#include "bench/working_set_accuracy/limited_tlb.h"

#include <optional>

#include "gtest/gtest.h"

namespace mmu::bench {
namespace {

TEST(LimitedTlbTest, ThePageThatWasUsedLeastRecentlyIsDropped) {
  LimitedTlb tlb(/*entries=*/3, /*ways=*/3);
  for (const int page : {1, 2, 3}) EXPECT_EQ(tlb.Use(page), std::nullopt);
  EXPECT_EQ(tlb.Use(1), std::nullopt);
  EXPECT_EQ(tlb.Use(4), 2);
  EXPECT_EQ(tlb.Use(1), std::nullopt);
  EXPECT_EQ(tlb.Use(5), 3);
}

TEST(LimitedTlbTest, OnlyPagesOfOneSetCompete) {
  LimitedTlb tlb(/*entries=*/4, /*ways=*/2);
  EXPECT_EQ(tlb.Use(0), std::nullopt);
  EXPECT_EQ(tlb.Use(2), std::nullopt);
  EXPECT_EQ(tlb.Use(1), std::nullopt);
  EXPECT_EQ(tlb.Use(4), 0);
  EXPECT_EQ(tlb.Use(3), std::nullopt);
}

TEST(LimitedTlbTest, NothingIsDroppedAfterAFlush) {
  LimitedTlb tlb(/*entries=*/1, /*ways=*/1);
  EXPECT_EQ(tlb.Use(1), std::nullopt);
  tlb.Clear();
  EXPECT_EQ(tlb.Use(2), std::nullopt);
  EXPECT_EQ(tlb.Use(1), 2);
}

}  // namespace
}  // namespace mmu::bench
