#include "mmu_core/sync/refill.h"

#include <atomic>
#include <cstdint>
#include <optional>

#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/interleaving.h"

namespace mmu {
namespace {

using ::mmu::testing::Interleaving;

TEST(RefillTest, WhoGetsEnoughOrHasNothingToHopeForDoesNotWait) {
  const uint64_t waits = GracePeriodWaits();
  int calls = 0;
  EXPECT_TRUE(FillFromPool([&] {
    ++calls;
    return Refill{.enough = true, .in_grace_period = 3};
  }));
  EXPECT_FALSE(FillFromPool([&] {
    ++calls;
    return Refill{.enough = false, .in_grace_period = 0};
  }));
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(GracePeriodWaits(), waits);
}

// The reader that delays the grace period leaves only when the other thread is
// about to wait for it.
TEST(RefillTest, WhatIsInItsGracePeriodIsWaitedForOnce) {
  const uint64_t waits = GracePeriodWaits();
  std::atomic<int> in_pool{0};
  int calls = 0;
  bool filled = false;
  std::optional<RcuReadGuard> reader(std::in_place);
  RcuDefer([](void* pool) { ++*static_cast<std::atomic<int>*>(pool); },
           &in_pool);
  Interleaving threads;
  threads.Add("fill", [&] {
    filled = FillFromPool([&] {
      ++calls;
      const bool there = in_pool.load() != 0;
      return Refill{.enough = there, .in_grace_period = there ? 0u : 1u};
    });
  });
  threads.RunTo("fill", HookPoint::kGracePeriod);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(in_pool.load(), 0);
  reader.reset();
  threads.RunToEnd("fill");
  EXPECT_TRUE(filled);
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(GracePeriodWaits(), waits + 1);
}

TEST(RefillTest, WhenOthersWereFasterItIsNotTriedForEver) {
  int calls = 0;
  EXPECT_FALSE(FillFromPool([&] {
    ++calls;
    return Refill{.enough = false, .in_grace_period = 1};
  }));
  EXPECT_EQ(calls, 2);
}

// Covers: LCK-01
TEST(RefillDeathTest, NotInAnRcuSectionNorUnderMmuLock) {
  const auto fill = [] { FillFromPool([] { return Refill{.enough = true}; }); };
  MmuLock mmu_lock;
  {
    RcuReadGuard rcu;
    EXPECT_FALSE(MayFillFromPool());
    EXPECT_DEATH(fill(), "MayFillFromPool");
  }
  {
    MmuReadLocked lock(mmu_lock, LockOp::kFault);
    EXPECT_FALSE(MayFillFromPool());
    EXPECT_DEATH(fill(), "MayFillFromPool");
    lock.Unlock();
    EXPECT_TRUE(MayFillFromPool());
    lock.Relock();
  }
  EXPECT_TRUE(MayFillFromPool());
}

}  // namespace
}  // namespace mmu
