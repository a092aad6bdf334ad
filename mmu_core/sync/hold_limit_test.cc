#include "mmu_core/sync/hold_limit.h"

#include <cstdint>
#include <limits>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/hold_clock.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {
namespace {

// Stands in for a lock witness. Its hold has just begun, or (`old`) began long
// ago.
class FakeLock {
 public:
  bool NeedYield() const { return contended; }
  int64_t work() const { return entries; }
  int64_t held_since() const {
    return old ? std::numeric_limits<int64_t>::min() / 2
               : std::numeric_limits<int64_t>::max() / 2;
  }

  bool contended = false;
  bool old = false;
  int64_t entries = 0;
};

TEST(HoldLimitTest, AShorterHoldHasLessOfBothAndALongerOneOnlyMoreTime) {
  const HoldLimit usual;
  EXPECT_EQ(usual.entries, 8192);
  EXPECT_EQ(usual.nanos, 50'000);
  const auto expect = [](absl::Duration asked, int64_t entries, int64_t nanos) {
    const HoldLimit limit = HoldLimit::For(asked);
    EXPECT_EQ(limit.entries, entries) << asked;
    EXPECT_EQ(limit.nanos, nanos) << asked;
  };
  expect(kDefaultMaxLockHold, usual.entries, usual.nanos);
  expect(absl::Microseconds(100), 4096, 25'000);
  expect(absl::Microseconds(10), 512, 2'500);
  expect(absl::Nanoseconds(1), 512, 0);
  expect(absl::Seconds(1), 8192, 250'000'000);
}

TEST(HoldWatchTest, WorkEndsAHoldThoughNoTimeHasPassed) {
  FakeLock lock;
  HoldWatch<FakeLock> watch(lock, {.entries = 100, .nanos = 1});
  lock.entries = 99;
  EXPECT_FALSE(watch.IsOver());
  lock.entries = 100;
  EXPECT_TRUE(watch.IsOver());
  lock.entries = 1;  // a new hold
  EXPECT_FALSE(watch.IsOver());
}

TEST(HoldWatchTest, TimeEndsAHoldAndIsLookedAtOnceIn64Entries) {
  FakeLock lock;
  lock.old = true;
  HoldWatch<FakeLock> watch(lock, {.entries = 100'000, .nanos = 1'000'000});
  lock.entries = 63;
  EXPECT_FALSE(watch.IsOver());
  lock.entries = 64;
  EXPECT_TRUE(watch.IsOver());
  lock.entries = 100;
  EXPECT_FALSE(watch.IsOver());
  lock.entries = 128;
  EXPECT_TRUE(watch.IsOver());
  lock.entries = 10;  // a new hold, which the watch has not read yet
  EXPECT_FALSE(watch.IsOver());
  lock.entries = 64;
  EXPECT_TRUE(watch.IsOver());
}

TEST(HoldWatchTest, WhoWaitsMakesAYieldDueWhateverWasDone) {
  FakeLock lock;
  HoldWatch<FakeLock> watch(lock, {});
  EXPECT_FALSE(watch.IsDue());
  lock.contended = true;
  EXPECT_TRUE(watch.IsDue());
  EXPECT_FALSE(watch.IsOver());
}

// Work is counted per hold, not per walk: two walks under one hold share its
// limit.
TEST(HoldWatchTest, WorkIsCountedAtTheLockAndBeginsAnewWithEachHold) {
  MmuLock mmu_lock;
  MmuWriteLocked lock(mmu_lock, LockOp::kClear);
  const HoldLimit limit{.entries = 10,
                        .nanos = std::numeric_limits<int64_t>::max()};
  HoldWatch<MmuWriteLocked> first(lock, limit);
  HoldWatch<MmuWriteLocked> second(lock, limit);
  EXPECT_LE(lock.held_since(), HoldNanos());
  lock.CountWork(6);
  EXPECT_FALSE(first.IsOver());
  lock.CountWork(4);
  EXPECT_TRUE(first.IsOver());
  EXPECT_TRUE(second.IsOver());
  lock.Yield();
  EXPECT_EQ(lock.work(), 0);
  EXPECT_FALSE(first.IsOver());
  lock.CountWork(3);
  lock.Unlock();
  lock.Relock();
  EXPECT_EQ(lock.work(), 0);
}

}  // namespace
}  // namespace mmu
