#include "client/mmu_client/range_set.h"

#include <cstdint>
#include <limits>
#include <vector>

#include "client/mmu_client/page_bitmap.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

using Ranges = std::vector<GpaRange>;

TEST(RangeSetTest, RemovingFromTheMiddleLeavesBothEnds) {
  RangeSet set({{0, 100}});
  EXPECT_TRUE(set.Remove({40, 20}));
  EXPECT_EQ(set.Ranges(), (Ranges{{0, 40}, {60, 40}}));
}

TEST(RangeSetTest, TouchingRangesAreOne) {
  RangeSet set({{0, 100}, {100, 100}});
  EXPECT_TRUE(set.Remove({50, 100}));
  EXPECT_EQ(set.Ranges(), (Ranges{{0, 50}, {150, 50}}));
}

TEST(RangeSetTest, WhatIsNotThereCannotBeRemoved) {
  RangeSet set({{100, 100}});
  EXPECT_FALSE(set.Remove({50, 60}));
  EXPECT_FALSE(set.Remove({190, 20}));
  EXPECT_FALSE(set.Remove({0, 10}));
  EXPECT_FALSE(set.Remove({100, 0}));
  EXPECT_TRUE(set.Remove({100, 100}));
  EXPECT_TRUE(set.empty());
  EXPECT_FALSE(set.Remove({100, 1}));
}

TEST(RangeSetTest, ARangeWhoseEndIsAbove2To63CannotBeRemoved) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  RangeSet set({{0x1000, 0x3000}});
  EXPECT_FALSE(set.Remove({0x2000, kMost - 0xfff}));
  EXPECT_FALSE(set.Remove({kMost, kMost}));
  EXPECT_FALSE(set.Remove({kMost, 1}));
  EXPECT_EQ(set.Ranges(), (std::vector<GpaRange>{{0x1000, 0x3000}}));
}

}  // namespace
}  // namespace mmud::client
