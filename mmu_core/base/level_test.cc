#include "mmu_core/base/level.h"

#include <gtest/gtest.h>

#include "mmu_core/base/address.h"

namespace mmu {
namespace {

// Covers: TRM-01
TEST(LevelTest, EachLevelMaps512TimesTheOneBelow) {
  EXPECT_EQ(kEntriesPerTable, 512);
  EXPECT_EQ(BytesPer(Level::k4K), uint64_t{4} << 10);
  EXPECT_EQ(BytesPer(Level::k2M), uint64_t{2} << 20);
  EXPECT_EQ(BytesPer(Level::k1G), uint64_t{1} << 30);
  EXPECT_EQ(BytesPer(Level::k512G), uint64_t{512} << 30);
  EXPECT_EQ(BytesPer(Level::k256T), uint64_t{256} << 40);
  EXPECT_EQ(PagesPer(Level::k4K), uint64_t{1});
  EXPECT_EQ(PagesPer(Level::k2M), uint64_t{512});
  EXPECT_EQ(PagesPer(Level::k1G), uint64_t{512} * 512);
}

// Covers: TRM-01
TEST(LevelTest, IndexTakesTheNineBitsOfItsLevel) {
  // An address of 52 bits whose index differs at every level.
  const Gfn gfn((uint64_t{1} << 36) | (uint64_t{2} << 27) |
                (uint64_t{3} << 18) | (uint64_t{4} << 9) | uint64_t{5});
  EXPECT_EQ(IndexOf(gfn, Level::k256T), 1);
  EXPECT_EQ(IndexOf(gfn, Level::k512G), 2);
  EXPECT_EQ(IndexOf(gfn, Level::k1G), 3);
  EXPECT_EQ(IndexOf(gfn, Level::k2M), 4);
  EXPECT_EQ(IndexOf(gfn, Level::k4K), 5);
  EXPECT_EQ(IndexOf(Gfn(511), Level::k4K), 511);
  EXPECT_EQ(IndexOf(Gfn(512), Level::k4K), 0);
  EXPECT_EQ(IndexOf(Gfn(512), Level::k2M), 1);
}

TEST(LevelTest, LargestLeafIsOneGigabyte) {
  EXPECT_EQ(kMaxLeafLevel, Level::k1G);
  EXPECT_EQ(BytesPer(kMaxLeafLevel), uint64_t{1} << 30);
}

TEST(LevelTest, ParentAndChildAreInverse) {
  EXPECT_EQ(ParentOf(Level::k4K), Level::k2M);
  EXPECT_EQ(ChildOf(Level::k256T), Level::k512G);
  EXPECT_EQ(ChildOf(ParentOf(Level::k2M)), Level::k2M);
}

TEST(LevelTest, RoundingStaysOnAlignedFramesAndMovesTheOthers) {
  EXPECT_EQ(RoundDown(Gfn(1023), Level::k2M), Gfn(512));
  EXPECT_EQ(RoundUp(Gfn(513), Level::k2M), Gfn(1024));
  EXPECT_EQ(RoundUp(Gfn(512), Level::k2M), Gfn(512));
  EXPECT_EQ(RoundDown(Gfn(513), Level::k4K), Gfn(513));
  EXPECT_TRUE(IsAligned(Gfn(1024), Level::k2M));
  EXPECT_FALSE(IsAligned(Gfn(1024), Level::k1G));
}

TEST(LevelTest, NamesAreThoseOfTheStatistics) {
  EXPECT_EQ(PageSizeName(Level::k4K), "4k");
  EXPECT_EQ(PageSizeName(Level::k2M), "2m");
  EXPECT_EQ(PageSizeName(Level::k1G), "1g");
  EXPECT_EQ(PageSizeName(Level::k512G), "512g");
  EXPECT_EQ(PageSizeName(Level::k256T), "256t");
}

}  // namespace
}  // namespace mmu
