#include "mmu_core/paging/table_cache.h"

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/refill.h"
#include "mmu_core/testing/interleaving.h"

namespace mmu {
namespace {

using ::mmu::testing::Interleaving;

TEST(TableCacheTest, ToppingUpFillsItAndGivesBackWhatIsLeft) {
  TablePool pool;
  {
    TableCache cache(pool);
    EXPECT_EQ(cache.count(), 0);
    ASSERT_TRUE(cache.TopUp(4).ok());
    EXPECT_EQ(cache.count(), TableCache::kCapacity);
    EXPECT_EQ(pool.tables_out(), 40u);
    ShadowPage* page = cache.Take();
    EXPECT_EQ(cache.count(), 39);
    EXPECT_EQ(page->next_free, nullptr);
    cache.Put(page);
    EXPECT_EQ(cache.count(), 40);
    EXPECT_EQ(cache.Take(), page) << "the last one put is still warm";
    pool.Return(page);
  }
  EXPECT_EQ(pool.tables_out(), 0u);
}

TEST(TableCacheTest, WithEnoughInItNothingIsTakenFromThePool) {
  TablePool pool;
  TableCache cache(pool);
  ASSERT_TRUE(cache.TopUp(2, 3).ok());
  EXPECT_EQ(pool.tables_out(), 3u);
  ASSERT_TRUE(cache.TopUp(3).ok());
  EXPECT_EQ(pool.tables_out(), 3u);
  ASSERT_TRUE(cache.TopUp(4, 5).ok());
  EXPECT_EQ(cache.count(), 5);
  EXPECT_EQ(pool.tables_out(), 5u);
  cache.Clear();
  EXPECT_EQ(cache.count(), 0);
  EXPECT_EQ(pool.tables_out(), 0u);
}

TEST(TableCacheTest, AnExhaustedPoolFailsOnlyIfLessThanTheMinimumIsThere) {
  TablePool pool(6);
  TableCache cache(pool);
  ASSERT_TRUE(cache.TopUp(4).ok()) << "six are enough";
  EXPECT_EQ(cache.count(), 6);
  TableCache other(pool);
  const absl::Status status = other.TopUp(1);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailOf(status).reason, Reason::kMmuPagesExhausted);
  EXPECT_EQ(other.count(), 0);

  // A failed TopUp keeps the tables that it got.
  pool.Return(cache.Take());
  pool.Return(cache.Take());
  EXPECT_FALSE(other.TopUp(3).ok());
  EXPECT_EQ(other.count(), 2);
  EXPECT_TRUE(other.TopUp(2).ok());
}

// Covers: TDP-43
TEST(TableCacheTest, AtTheLimitTablesInTheirGracePeriodAreWaitedFor) {
  TablePool pool(4);
  TableCache user(pool);
  ASSERT_TRUE(user.TopUp(4).ok());
  std::optional<RcuReadGuard> reader(std::in_place);
  for (int i = 0; i < 3; ++i) {
    ShadowPage* const page = user.Take();
    TablePool::BeginGracePeriod(*page);
    TablePool::HandToRcu(*page);
  }
  TableCache cache(pool);
  const uint64_t waits = GracePeriodWaits();
  absl::Status status = absl::UnknownError("not yet");
  Interleaving threads;
  threads.Add("fault", [&] { status = cache.TopUp(2); });
  threads.RunTo("fault", HookPoint::kGracePeriod);
  reader.reset();
  threads.RunToEnd("fault");
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(cache.count(), 3);
  EXPECT_EQ(GracePeriodWaits(), waits + 1);
}

// Covers: LCK-01
TEST(TableCacheDeathTest, WhoeverDelaysTheFreesOrHoldsMmuLockDoesNotTopUp) {
  TablePool pool;
  TableCache cache(pool);
  ASSERT_TRUE(cache.TopUp(4).ok());
  // TopUp dies even if the cache is full enough, because that is chance.
  {
    RcuReadGuard rcu;
    EXPECT_DEATH(cache.TopUp(4).IgnoreError(), "MayFillFromPool");
  }
  MmuLock mmu_lock;
  MmuReadLocked lock(mmu_lock, LockOp::kFault);
  EXPECT_DEATH(cache.TopUp(4).IgnoreError(), "MayFillFromPool");
}

}  // namespace
}  // namespace mmu
