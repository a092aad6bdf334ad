// Pages of one word of a bitmap, how many of them lie in a range, and how many
// pages a clear protects besides.

#include <cstdint>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/mmu/mmu.h"

namespace mmu {
namespace {

TEST(PageMaskTest, CountsAsManyPagesAsItHas) {
  for (const uint64_t mask : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 63,
                              uint64_t{0x8000'f0f0'1234'0001}, ~uint64_t{0}}) {
    const PageMask pages = {.first = Gfn(128), .mask = mask};
    for (const uint64_t start : {0, 1, 127, 128, 129, 160, 191, 192, 500}) {
      for (const uint64_t end : {0, 127, 128, 129, 130, 161, 191, 192, 193}) {
        const GfnRange range{Gfn(start), Gfn(end)};
        uint64_t expected = 0;
        for (uint64_t gfn = start; gfn < end; ++gfn) {
          if (pages.Has(Gfn(gfn))) ++expected;
        }
        EXPECT_EQ(pages.CountIn(range), expected) << mask << " " << range;
      }
    }
  }
}

// A block of 512 pages is protected for its first word. Then the guest splits
// it, and a page of the second word is protected. The other words clear pages
// of the block, too.
TEST(AlsoProtectedTest, ABlockCountsUntilAllItsWordsAreCleared) {
  AlsoProtected also;
  for (uint64_t word = 0; word < 8; ++word) {
    const PageMask cleared = {.first = Gfn(64 * word), .mask = ~uint64_t{0}};
    also.BeginWord(cleared);
    if (word == 0) also.Add(GfnRange::Of(Gfn(0), 512), cleared);
    if (word == 1) also.Add(GfnRange::Of(Gfn(100), 1), cleared);
    EXPECT_EQ(also.pages(), 512 - 64 * (word + 1));
  }
}

}  // namespace
}  // namespace mmu
