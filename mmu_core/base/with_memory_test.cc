#include "mmu_core/base/with_memory.h"

#include <new>

#include "gtest/gtest.h"

namespace mmu {
namespace {

TEST(WithMemoryTest, SaysWhetherThereWasEnough) {
  EXPECT_TRUE(TryWithMemory([] { return true; }));
  EXPECT_FALSE(TryWithMemory([] { return false; }));
  EXPECT_FALSE(TryWithMemory([]() -> bool { throw std::bad_alloc(); }));
}

}  // namespace
}  // namespace mmu
