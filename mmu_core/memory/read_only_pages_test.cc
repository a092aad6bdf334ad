#include "mmu_core/memory/read_only_pages.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/level.h"

namespace mmu {
namespace {

TEST(ReadOnlyPagesTest, TheSetIsWhatWasAddedAndNotRemovedSince) {
  ReadOnlyPages pages;
  EXPECT_TRUE(pages.empty());
  std::vector<bool> expected(64);
  uint64_t seed = 1;
  for (int step = 0; step < 2000; ++step) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    const uint64_t first = (seed >> 33) % 63;
    const uint64_t end = first + 1 + (seed >> 40) % (64 - first);
    const bool add = (seed >> 60) % 2 == 0;
    if (add) {
      pages.Add(first, end);
    } else {
      pages.Remove(first, end);
    }
    bool empty = true;
    for (uint64_t page = 0; page < 64; ++page) {
      if (page >= first && page < end) expected[page] = add;
      empty &= !expected[page];
      ASSERT_EQ(pages.Contains(page), expected[page]) << page;
    }
    ASSERT_EQ(pages.empty(), empty);
  }
}

TEST(ReadOnlyPagesTest, ABlockIsUniformIfItIsInTheSetAsAWholeOrNotAtAll) {
  ReadOnlyPages pages;
  pages.Add(512, 1024);
  pages.Add(1500, 1501);
  EXPECT_EQ(pages.UniformLevel(3, Level::k1G), Level::k2M);
  EXPECT_EQ(pages.UniformLevel(512, Level::k1G), Level::k2M);
  EXPECT_EQ(pages.UniformLevel(1023, Level::k1G), Level::k2M);
  EXPECT_EQ(pages.UniformLevel(1024, Level::k1G), Level::k4K);
  EXPECT_EQ(pages.UniformLevel(1500, Level::k2M), Level::k4K);
  EXPECT_EQ(pages.UniformLevel(1536, Level::k1G), Level::k2M);
  EXPECT_EQ(pages.UniformLevel(uint64_t{1} << 18, Level::k1G), Level::k1G);
  EXPECT_EQ(pages.UniformLevel(512, Level::k4K), Level::k4K);
  pages.Add(0, uint64_t{1} << 18);
  EXPECT_EQ(pages.UniformLevel(1500, Level::k1G), Level::k1G);
}

}  // namespace
}  // namespace mmu
