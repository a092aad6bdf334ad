#include "mmu_core/base/gfn_range.h"

#include <gtest/gtest.h>

#include <sstream>

#include "mmu_core/base/address.h"

namespace mmu {
namespace {

constexpr GfnRange Range(uint64_t start, uint64_t end) {
  return GfnRange{Gfn(start), Gfn(end)};
}

TEST(GfnRangeTest, EndIsNotPartOfTheRange) {
  const GfnRange range = GfnRange::Of(Gfn(10), 5);
  EXPECT_EQ(range, Range(10, 15));
  EXPECT_FALSE(range.Contains(Gfn(9)));
  EXPECT_TRUE(range.Contains(Gfn(10)));
  EXPECT_TRUE(range.Contains(Gfn(14)));
  EXPECT_FALSE(range.Contains(Gfn(15)));
  EXPECT_EQ(range.pages(), uint64_t{5});
  EXPECT_EQ(range.bytes(), uint64_t{5} * 4096);
}

TEST(GfnRangeTest, BackwardsRangeIsEmptyAndNotHuge) {
  EXPECT_TRUE(Range(10, 10).empty());
  EXPECT_TRUE(Range(10, 3).empty());
  EXPECT_EQ(Range(10, 3).pages(), uint64_t{0});
}

TEST(GfnRangeTest, NeighboursDoNotOverlap) {
  EXPECT_FALSE(Range(0, 10).Overlaps(Range(10, 20)));
  EXPECT_TRUE(Range(0, 11).Overlaps(Range(10, 20)));
  EXPECT_TRUE(Range(12, 13).Overlaps(Range(10, 20)));
}

TEST(GfnRangeTest, EmptyRangeOverlapsNothing) {
  EXPECT_FALSE(Range(15, 15).Overlaps(Range(10, 20)));
  EXPECT_FALSE(Range(10, 20).Overlaps(Range(15, 15)));
}

TEST(GfnRangeTest, ContainsWholeRangesOnly) {
  EXPECT_TRUE(Range(10, 20).Contains(Range(10, 20)));
  EXPECT_FALSE(Range(10, 20).Contains(Range(10, 21)));
  EXPECT_FALSE(Range(10, 20).Contains(Range(9, 11)));
  EXPECT_TRUE(Range(10, 20).Contains(Range(30, 30)));
}

TEST(GfnRangeTest, IntersectionOfDisjointRangesIsEmpty) {
  EXPECT_EQ(Range(0, 10).Intersect(Range(5, 20)), Range(5, 10));
  EXPECT_TRUE(Range(0, 10).Intersect(Range(10, 20)).empty());
  EXPECT_TRUE(Range(0, 10).Intersect(Range(15, 20)).empty());
}

TEST(GfnRangeTest, PrintsBothEnds) {
  std::ostringstream os;
  os << Range(0x10, 0x20);
  EXPECT_EQ(os.str(), "[gfn 0x10, 0x20)");
}

}  // namespace
}  // namespace mmu
