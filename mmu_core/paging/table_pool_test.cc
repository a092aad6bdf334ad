#include "mmu_core/paging/table_pool.h"

#include <atomic>
#include <cstdint>
#include <set>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/table_budget.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

TEST(TablePoolTest, TablesAreDistinctAlignedAndLeadToTheirDescriptors) {
  TablePool pool;
  // The chain is larger than one block of 2 MiB.
  const TablePool::Chain chain = pool.Take(1200);
  ASSERT_EQ(chain.count, 1200);
  EXPECT_EQ(pool.tables_out(), 1200u);
  std::set<const PageTable*> tables;
  for (ShadowPage* page = chain.head; page != nullptr; page = page->next_free) {
    EXPECT_TRUE(tables.insert(page->table).second);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(page->table) % kPageSize, 0u);
    EXPECT_EQ(TablePool::DescriptorOf(page->table), page);
    EXPECT_EQ(page->pool, &pool);
    page->table->FillUnpublished(Spte::Initial());  // the memory is mapped
  }
  EXPECT_EQ(tables.size(), 1200u);
  pool.Return(chain.head);
  EXPECT_EQ(pool.tables_out(), 0u);
}

// Tables of several sizes share a budget. Room for a small one is no room for a
// large one.
TEST(TableBudgetTest, ATableIsGrantedWholeOrNotAtAll) {
  TableBudget budget(/*max=*/35);
  EXPECT_EQ(budget.Take(/*tables=*/3, /*units=*/16).tables, 2u);
  EXPECT_FALSE(budget.is_at_limit(3));
  EXPECT_TRUE(budget.is_at_limit(4));
  EXPECT_EQ(budget.Take(1, 4).tables, 0u);
  EXPECT_EQ(budget.Take(5, 1).tables, 3u);
  EXPECT_TRUE(budget.is_at_limit(1));
  budget.Return(16);
  EXPECT_FALSE(budget.is_at_limit(16));
  EXPECT_EQ(budget.Snapshot().in_use, 19u);
}

TEST(TablePoolTest, ALimitIsKeptAndCanBeMoved) {
  TablePool pool(3);
  const TablePool::Chain first = pool.Take(2);
  EXPECT_EQ(first.count, 2);
  const TablePool::Chain second = pool.Take(2);
  EXPECT_EQ(second.count, 1) << "the third is the last";
  const TablePool::Chain none = pool.Take(1);
  EXPECT_EQ(none.count, 0);
  EXPECT_EQ(none.head, nullptr);

  pool.SetMaxTables(4);
  const TablePool::Chain fourth = pool.Take(5);
  EXPECT_EQ(fourth.count, 1);
  pool.SetMaxTables(1);  // below the tables out: no more until they return
  pool.Return(first.head);
  EXPECT_EQ(pool.Take(1).count, 0);
  pool.Return(second.head);
  pool.Return(fourth.head);
  const TablePool::Chain again = pool.Take(2);
  EXPECT_EQ(again.count, 1);
  pool.SetMaxTables(0);
  const TablePool::Chain many = pool.Take(100);
  EXPECT_EQ(many.count, 100) << "0 is no limit";
  pool.Return(again.head);
  pool.Return(many.head);
}

// Covers: TDP-30
TEST(TablePoolTest, ATableInItsGracePeriodIsNeitherInUseNorFree) {
  TablePool pool(3);
  const TablePool::Chain chain = pool.Take(3);
  ASSERT_EQ(chain.count, 3);
  EXPECT_EQ(chain.in_grace_period, 0u);
  ShadowPage* const kept = chain.head->next_free;
  {
    RcuReadGuard reader;
    TablePool::BeginGracePeriod(*chain.head);
    TablePool::HandToRcu(*chain.head);
    EXPECT_EQ(pool.Snapshot().in_use, 2u);
    EXPECT_EQ(pool.Snapshot().in_grace_period, 1u);
    EXPECT_EQ(pool.Snapshot().max_tables, 3u);
    const TablePool::Chain none = pool.Take(1);
    EXPECT_EQ(none.count, 0) << "it is memory all the same";
    EXPECT_EQ(none.in_grace_period, 1u);
  }
  RcuBarrier();
  EXPECT_EQ(pool.Snapshot().in_use, 2u);
  EXPECT_EQ(pool.Snapshot().in_grace_period, 0u);
  const TablePool::Chain again = pool.Take(1);
  EXPECT_EQ(again.count, 1);
  pool.Return(again.head);
  pool.Return(kept);
}

TEST(TablePoolTest, ThreadsNeverGetTheSameTable) {
  TablePool pool;
  constexpr int kThreads = 4;
  constexpr int kRounds = 300;
  std::atomic<int> clashes{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round) {
        const TablePool::Chain chain = pool.Take(1 + round % 7);
        const Spte mine(static_cast<uint64_t>(t * kRounds + round));
        for (ShadowPage* p = chain.head; p != nullptr; p = p->next_free) {
          p->table->FillUnpublished(mine);
        }
        for (ShadowPage* p = chain.head; p != nullptr; p = p->next_free) {
          if (p->table->entries[round % 512].Load() != mine) ++clashes;
        }
        pool.Return(chain.head);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(clashes.load(), 0);
  EXPECT_EQ(pool.tables_out(), 0u);
}

TEST(TablePoolDeathTest, DestroyingAPoolWithTablesOutIsABug) {
  EXPECT_DEATH(
      {
        TablePool pool;
        pool.Take(1);
      },
      "tables_out");
}

}  // namespace
}  // namespace mmu
