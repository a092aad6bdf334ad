#include "mmu_core/guest/page_permutation.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace mmu {
namespace {

TEST(PagePermutationTest, IsABijectionForEverySize) {
  for (uint64_t size = 1; size <= 300; ++size) {
    for (const uint64_t seed : {0u, 1u, 99u}) {
      const PagePermutation order(size, seed);
      std::vector<int> hits(size, 0);
      for (uint64_t i = 0; i < size; ++i) {
        ASSERT_LT(order.At(i), size);
        ++hits[order.At(i)];
      }
      EXPECT_EQ(hits, std::vector<int>(size, 1)) << size;
    }
  }
}

TEST(PagePermutationTest, ScattersNeighboursOfALargeSpace) {
  const uint64_t size = (uint64_t{1} << 28) + 12345;  // 1 TiB of pages
  const PagePermutation order(size, 7);
  int close = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    const uint64_t a = order.At(i);
    const uint64_t b = order.At(i + 1);
    if ((a > b ? a - b : b - a) < 512) ++close;
  }
  EXPECT_LE(close, 2);
}

TEST(PagePermutationTest, SeedChoosesTheOrder) {
  const PagePermutation a(1000, 1);
  const PagePermutation again(1000, 1);
  const PagePermutation b(1000, 2);
  int same_as_b = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    EXPECT_EQ(a.At(i), again.At(i));
    same_as_b += a.At(i) == b.At(i) ? 1 : 0;
  }
  EXPECT_LT(same_as_b, 20);
}

}  // namespace
}  // namespace mmu
