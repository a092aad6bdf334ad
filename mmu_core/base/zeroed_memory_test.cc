#include "mmu_core/base/zeroed_memory.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace mmu {
namespace {

TEST(ZeroedMemoryTest, MemoryOfAnySizeIsZeroAndCanBeWritten) {
  for (const size_t bytes : {1, 8, 4095, 4096, 1 << 20}) {
    // In the second round the heap may return memory that the first round
    // wrote.
    for (int i = 0; i < 2; ++i) {
      const ZeroedMemory memory = ZeroedMemory::TryAllocate(bytes);
      ASSERT_TRUE(memory);
      EXPECT_EQ(memory.bytes(), bytes);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.get()) % 64, 0u);
      const std::vector<char> zeroes(bytes, 0);
      EXPECT_EQ(std::memcmp(memory.get(), zeroes.data(), bytes), 0) << bytes;
      std::memset(memory.get(), 0x5a, bytes);
    }
  }
}

TEST(ZeroedMemoryTest, WhatTheHostDoesNotHaveIsNone) {
  const ZeroedMemory memory = ZeroedMemory::TryAllocate(size_t{1} << 60);
  EXPECT_FALSE(memory);
  EXPECT_EQ(memory.get(), nullptr);
}

TEST(ZeroedMemoryTest, MemoryMovesWithItsOwner) {
  ZeroedMemory a = ZeroedMemory::TryAllocate(8);
  void* const where = a.get();
  ZeroedMemory b(std::move(a));
  ZeroedMemory c;
  c = std::move(b);
  EXPECT_EQ(c.get(), where);
}

}  // namespace
}  // namespace mmu
