#include "mmu_core/base/aligned_block.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <set>

#include "gtest/gtest.h"

namespace mmu {
namespace {

TEST(AlignedBlockTest, BlocksOfZeroesBeginAtMultiplesOfTheirSize) {
  constexpr size_t kBytes = size_t{256} << 10;
  std::set<uint64_t*> blocks;
  for (int i = 0; i < 8; ++i) {
    auto* block = static_cast<uint64_t*>(MapAlignedBlock(kBytes));
    ASSERT_NE(block, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % kBytes, 0u);
    for (size_t word = 0; word < kBytes / sizeof(uint64_t); ++word) {
      ASSERT_EQ(block[word], 0u);
      block[word] = ~uint64_t{0};
    }
    EXPECT_TRUE(blocks.insert(block).second);
  }
  for (uint64_t* block : blocks) EXPECT_EQ(munmap(block, kBytes), 0);
}

TEST(AlignedBlockTest, WhatTheHostDoesNotHaveIsNull) {
  EXPECT_EQ(MapAlignedBlock(size_t{1} << 50), nullptr);
}

}  // namespace
}  // namespace mmu
