// Registering with RCU allocates, once per thread and process. This test has a
// program of its own, because it needs the first thread that registers.

#include <cstdint>

#include "gtest/gtest.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/failing_allocations.h"

namespace mmu {
namespace {

// Covers: LCK-01
TEST(RcuRegisterTest, WhoIsRegisteredAllocatesNothingMore) {
  static RcuHook hook;
  static bool called = false;
  [[maybe_unused]] const uint64_t begin = testing::AllocationsOfThread().calls;
  RcuRegisterThread();
  const uint64_t registered = testing::AllocationsOfThread().calls;
#ifndef MMU_SANITIZED
  EXPECT_GT(registered, begin) << "else this sees nothing";
#endif
  {
    RcuReadGuard rcu;
    RcuDefer(
        &hook, [](void* flag) { *static_cast<bool*>(flag) = true; }, &called);
  }
  RcuRegisterThread();
  EXPECT_EQ(testing::AllocationsOfThread().calls, registered);
  RcuBarrier();
  EXPECT_TRUE(called);
}

}  // namespace
}  // namespace mmu
