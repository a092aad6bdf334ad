#include "mmu_core/sync/refill.h"

#include <atomic>
#include <cstdint>
#include <optional>

#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/await.h"
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

// A reader delays the grace period. It leaves only when the other thread is
// about to wait. The callbacks of RCU wait until it waits for them.
TEST(RefillTest, WhatIsInItsGracePeriodIsWaitedForOnce) {
  const uint64_t waits = GracePeriodWaits();
  std::atomic<int> in_pool{0};
  int calls = 0;
  bool filled = false;
  std::optional<RcuReadGuard> reader(std::in_place);
  std::atomic<bool> may_run{false};
  RcuDefer(
      [](void* go) {
        testing::Await("the callbacks may run", [go] {
          return static_cast<std::atomic<bool>*>(go)->load();
        });
      },
      &may_run);
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
  threads.RunTo("fill", HookPoint::kGracePeriod);  // that of the callbacks
  EXPECT_FALSE(threads.HasEnded("fill"));
  may_run = true;
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

// A Reclaim is going on that has freed no piece yet. A thread that fills its
// stock meanwhile finds no piece in its grace period, and must wait for the
// Reclaim.
TEST(RefillTest, WhatAThreadHasYetToComeToIsWaitedFor) {
  const uint64_t waits = GracePeriodWaits();
  std::atomic<int> in_pool{0};
  std::atomic<int> calls{0};
  bool filled = false;
  std::optional<Reclaim> reclaim(std::in_place);
  Interleaving threads;
  threads.Add("fill", [&] {
    filled = FillFromPool([&] {
      ++calls;
      return Refill{.enough = in_pool.load() != 0};
    });
  });
  // The thread looks repeatedly, and passes this hook twice at each look.
  threads.RunTo("fill", HookPoint::kGracePeriod, 7);
  EXPECT_EQ(calls, 4);
  {
    RcuReadGuard rcu;
    RcuDefer([](void* pool) { ++*static_cast<std::atomic<int>*>(pool); },
             &in_pool);
  }
  reclaim.reset();
  threads.RunToEnd("fill");
  EXPECT_TRUE(filled);
  EXPECT_EQ(GracePeriodWaits(), waits + 1) << "one wait, however long";
}

// Enough pieces are there long before the Reclaim ends.
TEST(RefillTest, TheEndOfAReclaimIsNotWaitedForIfThereIsEnoughBefore) {
  std::atomic<int> in_pool{0};
  bool filled = false;
  const Reclaim reclaim;
  Interleaving threads;
  threads.Add("fill", [&] {
    filled =
        FillFromPool([&] { return Refill{.enough = in_pool.load() != 0}; });
  });
  threads.RunTo("fill", HookPoint::kGracePeriod);
  in_pool = 1;
  threads.RunToEnd("fill");
  EXPECT_TRUE(filled);
}

// FillFromPool waits only for the Reclaims that it finds at its first look.
// Otherwise it might wait for ever.
TEST(RefillTest, ReclaimsThatBeginLaterAreNotWaitedFor) {
  bool filled = true;
  std::optional<Reclaim> first(std::in_place);
  Interleaving threads;
  threads.Add("fill", [&] { filled = FillFromPool([] { return Refill{}; }); });
  threads.RunTo("fill", HookPoint::kGracePeriod);
  const Reclaim second;
  first.reset();
  threads.RunToEnd("fill");
  EXPECT_FALSE(filled);
}

// The Reclaims end in another order than they began.
TEST(RefillTest, AllReclaimsThatGoOnAreWaitedFor) {
  bool filled = true;
  std::optional<Reclaim> oldest(std::in_place);
  std::optional<Reclaim> middle(std::in_place);
  std::optional<Reclaim> newest(std::in_place);
  Interleaving threads;
  threads.Add("fill", [&] { filled = FillFromPool([] { return Refill{}; }); });
  threads.RunTo("fill", HookPoint::kGracePeriod);
  middle.reset();
  threads.RunTo("fill", HookPoint::kGracePeriod, 4);
  oldest.reset();
  threads.RunTo("fill", HookPoint::kGracePeriod, 4);
  EXPECT_FALSE(threads.HasEnded("fill"));
  newest.reset();
  threads.RunToEnd("fill");
  EXPECT_FALSE(filled);
}

// A thread has counted a piece as in its grace period and not yet handed it to
// RCU. Another thread waits in this state, and finds the piece when it looks
// again.
TEST(RefillTest, APieceBetweenItsCountAndRcuIsWaitedFor) {
  std::atomic<uint64_t> on_its_way{0};
  std::atomic<int> in_pool{0};
  struct Piece {
    std::atomic<uint64_t>& on_its_way;
    std::atomic<int>& in_pool;
    RcuHook rcu;
  };
  Piece piece{on_its_way, in_pool, {}};
  bool filled = false;
  Interleaving threads;
  threads.Add("free", [&] {
    RcuReadGuard rcu;
    ++on_its_way;
    AtHook(HookPoint::kFreezeToFree);
    RcuDefer(
        &piece.rcu,
        [](void* arg) {
          auto& own = *static_cast<Piece*>(arg);
          ++own.in_pool;
          --own.on_its_way;
        },
        &piece);
  });
  threads.Add("fill", [&] {
    filled = FillFromPool([&] {
      return Refill{.enough = in_pool.load() != 0,
                    .in_grace_period = on_its_way.load()};
    });
  });
  threads.RunTo("free", HookPoint::kFreezeToFree);
  threads.RunTo("fill", HookPoint::kGracePeriod);
  threads.Start("fill");
  // One that did not wait for the section would soon find nothing.
  EXPECT_FALSE(threads.EndsSoon("fill"));
  threads.RunToEnd("free");
  threads.WaitForEnd("fill");
  EXPECT_TRUE(filled);
}

// Covers: LCK-01
TEST(RefillDeathTest, NotInAnRcuSectionNorUnderMmuLockNorWithAReclaim) {
  const auto fill = [] { FillFromPool([] { return Refill{.enough = true}; }); };
  MmuLock mmu_lock;
  {
    RcuReadGuard rcu;
    EXPECT_FALSE(MayFillFromPool());
    EXPECT_DEATH(fill(), "MayFillFromPool");
  }
  {
    const Reclaim reclaim;
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
