// Pages of one word of a bitmap, and how many of them lie in a range.

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

}  // namespace
}  // namespace mmu
