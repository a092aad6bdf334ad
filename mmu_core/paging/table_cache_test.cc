#include "mmu_core/paging/table_cache.h"

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/table_pool.h"

namespace mmu {
namespace {

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
  EXPECT_EQ(DetailOf(status).reason, "MMU_PAGES_EXHAUSTED");
  EXPECT_EQ(other.count(), 0);

  // What was got is kept.
  pool.Return(cache.Take());
  pool.Return(cache.Take());
  EXPECT_FALSE(other.TopUp(3).ok());
  EXPECT_EQ(other.count(), 2);
  EXPECT_TRUE(other.TopUp(2).ok());
}

}  // namespace
}  // namespace mmu
