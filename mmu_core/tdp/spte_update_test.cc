#include "mmu_core/tdp/spte_update.h"

#include <atomic>
#include <cstdint>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

const SpteFormat& Ept() { return SpteFormat::Ept(); }

Spte Leaf(uint64_t pfn, Level level = Level::k4K, bool write = true) {
  return Ept().MakeLeaf({.level = level, .pfn = Pfn(pfn), .write = write});
}

// One root, an updater, and no VM.
class SpteUpdateTest : public ::testing::Test {
 protected:
  SpteUpdateTest() : updater_(Ept(), counters_, nx_huge_pages_) {
    root_ = NewPage();
    root_->role = PageRole::Direct(Level::k512G, 1);
    root_->gfn = Gfn(0);
  }
  ~SpteUpdateTest() override {
    {
      MmuWriteLocked lock(lock_, LockOp::kZap);
      RcuReadGuard rcu;
      for (TdpCursor c = CursorAt(Gfn(0), Level::k512G); c.Valid(); c.Next()) {
        if (c.old_spte().IsPresent()) {
          updater_.Update(lock, c, Spte::Initial());
        }
      }
    }
    pool_.Return(root_);
    RcuBarrier();
    EXPECT_EQ(pool_.tables_out(), 0u) << "a table was leaked";
    EXPECT_EQ(counters_.Tables(), 0u);
    EXPECT_EQ(counters_.Leafs(Level::k4K), 0u);
    EXPECT_EQ(counters_.Leafs(Level::k2M), 0u);
    EXPECT_EQ(counters_.Leafs(Level::k1G), 0u);
  }

  ShadowPage* NewPage() {
    ShadowPage* page = pool_.Take(1).head;
    page->next_free = nullptr;
    page->table->FillUnpublished(Spte::Initial());
    return page;
  }

  // A cursor at the entry of `level` for `gfn`. The tables above it must exist.
  TdpCursor CursorAt(Gfn gfn, Level level) {
    TdpCursor c(root_->table, Level::k512G, GfnRange::Of(gfn, 1), level);
    while (c.level() > level) c.Next();
    return c;
  }

  // Links tables down to `level`, then puts a leaf there.
  void Map(Gfn gfn, Spte leaf, Level level = Level::k4K) {
    MmuReadLocked lock(lock_, LockOp::kFault);
    RcuReadGuard rcu;
    for (Level l = Level::k512G; l > level; l = ChildOf(l)) {
      TdpCursor c = CursorAt(gfn, l);
      if (c.IsPresentTable()) continue;
      ShadowPage* page = NewPage();
      updater_.PrepareChild(c, *page);
      ASSERT_TRUE(updater_.Link(lock, c, *page));
    }
    TdpCursor c = CursorAt(gfn, level);
    ASSERT_TRUE(updater_.Update(lock, c, leaf));
  }

  TablePool pool_;
  MmuCounters counters_;
  MmuLock lock_;
  NxHugePageList nx_huge_pages_;
  SpteUpdater updater_;
  ShadowPage* root_;
};

// Covers: TDP-25
TEST_F(SpteUpdateTest, OfTwoChangesFromOneSnapshotTheSecondFailsAndSeesWhy) {
  Map(Gfn(0), Leaf(0));
  MmuReadLocked lock(lock_, LockOp::kFault);
  RcuReadGuard rcu;
  TdpCursor first = CursorAt(Gfn(3), Level::k4K);
  TdpCursor second = CursorAt(Gfn(3), Level::k4K);
  EXPECT_TRUE(updater_.Update(lock, first, Leaf(33)));
  EXPECT_EQ(first.old_spte(), Leaf(33));
  EXPECT_EQ(counters_.Leafs(Level::k4K), 2u);
  EXPECT_FALSE(updater_.Update(lock, second, Leaf(33, Level::k4K, false)));
  EXPECT_EQ(second.old_spte(), Leaf(33)) << "the snapshot is fresh";
  EXPECT_EQ(second.slot().Load(), Leaf(33)) << "nothing changed";
  EXPECT_EQ(counters_.Leafs(Level::k4K), 2u) << "and nothing was counted";
}

// Covers: TDP-25
TEST_F(SpteUpdateTest, OfManyThreadsThatInstallALeafOneWins) {
  Map(Gfn(0), Leaf(0));
  constexpr int kThreads = 4;
  std::atomic<int> ready{0}, wins{0}, wrong_snapshots{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (uint64_t gfn = 1; gfn < 512; ++gfn) {
        ++ready;
        while (ready.load() < static_cast<int>(gfn) * kThreads) {
          std::this_thread::yield();
        }
        MmuReadLocked lock(lock_, LockOp::kFault);
        RcuReadGuard rcu;
        TdpCursor c = CursorAt(Gfn(gfn), Level::k4K);
        if (c.old_spte().IsPresent()) continue;  // another thread was faster
        if (updater_.Update(lock, c, Leaf(gfn))) {
          ++wins;
        } else if (c.old_spte() != Leaf(gfn)) {
          ++wrong_snapshots;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wins.load(), 511);
  EXPECT_EQ(wrong_snapshots.load(), 0);
  EXPECT_EQ(counters_.Leafs(Level::k4K), 512u);
}

// Covers: TDP-26, SPTE-33
TEST_F(SpteUpdateTest, AnExclusiveChangeReturnsTheDirtyBitSetMeanwhile) {
  const Spte clean = Leaf(5).Without(Ept().dirty_mask());
  Map(Gfn(5), clean);
  MmuWriteLocked lock(lock_, LockOp::kClear);
  RcuReadGuard rcu;
  TdpCursor c = CursorAt(Gfn(5), Level::k4K);
  ASSERT_TRUE(Ept().IsVolatile(c.old_spte()));
  // The processor sets the Dirty bit between the snapshot and the change.
  c.slot().Store(Leaf(5));
  const Spte wanted = Ept().WithoutMmuWrite(clean);
  EXPECT_EQ(updater_.Update(lock, c, wanted), Leaf(5));
  EXPECT_EQ(c.slot().Load(), wanted);
  EXPECT_EQ(c.old_spte(), wanted);
}

#ifndef NDEBUG
// Covers: TDP-26
TEST_F(SpteUpdateTest, FrozenValuesHaveNoPlaceInAnExclusiveChange) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        MmuWriteLocked lock(lock_, LockOp::kZap);
        RcuReadGuard rcu;
        TdpCursor c = CursorAt(Gfn(0), Level::k512G);
        updater_.Update(lock, c, Spte::Frozen());
      },
      "IsFrozen");
}

// Covers: TDP-25, TDP-30
TEST_F(SpteUpdateTest, AChangeOfAFrozenSnapshotOrOutsideRcuIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        MmuReadLocked lock(lock_, LockOp::kFault);
        RcuReadGuard rcu;
        TdpCursor c = CursorAt(Gfn(0), Level::k512G);
        c.SetOldSpte(Spte::Frozen());
        (void)updater_.Update(lock, c, Spte::Initial());
      },
      "IsFrozen");
  EXPECT_DEATH(
      {
        MmuReadLocked lock(lock_, LockOp::kFault);
        TdpCursor c = [this] {
          RcuReadGuard rcu;
          return CursorAt(Gfn(0), Level::k512G);
        }();
        (void)updater_.Update(lock, c, Spte::Initial());
      },
      "spte_update.cc.*InRcuReadSection");
}
#endif

// Covers: TDP-27
TEST_F(SpteUpdateTest, ALeafThatChangesItsFrameIsFatal) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Map(Gfn(5), Leaf(5));
  EXPECT_DEATH(
      {
        MmuReadLocked lock(lock_, LockOp::kFault);
        RcuReadGuard rcu;
        TdpCursor c = CursorAt(Gfn(5), Level::k4K);
        (void)updater_.Update(lock, c, Leaf(6));
      },
      "pfn");
}

// Covers: TDP-27
TEST_F(SpteUpdateTest, TheStatisticsFollowEveryChangeOfAnEntry) {
  MmuReadLocked lock(lock_, LockOp::kFault);
  const auto change = [&](Spte to) {
    RcuReadGuard rcu;
    TdpCursor c = CursorAt(Gfn(0), Level::k2M);
    ASSERT_TRUE(updater_.Update(lock, c, to));
  };
  const auto expect = [&](uint64_t leafs_4k, uint64_t leafs_2m,
                          uint64_t tables) {
    EXPECT_EQ(counters_.Leafs(Level::k4K), leafs_4k);
    EXPECT_EQ(counters_.Leafs(Level::k2M), leafs_2m);
    EXPECT_EQ(counters_.Tables(), tables);
  };
  {
    // Links two tables; there is no leaf yet.
    RcuReadGuard rcu;
    for (const Level level : {Level::k512G, Level::k1G}) {
      TdpCursor c = CursorAt(Gfn(0), level);
      ShadowPage* page = NewPage();
      updater_.PrepareChild(c, *page);
      ASSERT_TRUE(updater_.Link(lock, c, *page));
    }
  }
  expect(0, 0, 2);
  const Spte huge = Leaf(0, Level::k2M);
  change(huge);  // nothing -> leaf
  expect(0, 1, 2);
  change(huge);  // equal
  expect(0, 1, 2);
  change(huge.Without(spte_bits::kWrite));  // leaf -> leaf
  expect(0, 1, 2);
  change(Spte::Initial());  // leaf -> nothing
  expect(0, 0, 2);
  change(Spte::Initial());
  expect(0, 0, 2);

  // A leaf replaces a table, so the table and its leafs are removed.
  ShadowPage* page = NewPage();
  for (int i : {0, 7, 511}) {
    page->table->entries[i].StoreUnpublished(Leaf(i));
  }
  counters_.AddLeafs(Level::k4K, 3);
  {
    RcuReadGuard rcu;
    TdpCursor c = CursorAt(Gfn(0), Level::k2M);
    updater_.PrepareChild(c, *page);
    ASSERT_TRUE(updater_.Link(lock, c, *page));
  }
  expect(3, 0, 3);
  change(huge);
  expect(0, 1, 2);
}

// Covers: TDP-46
TEST_F(SpteUpdateTest, AChildTableHasItsParentsRoleOneLevelDown) {
  const Gfn kGfn(5 * PagesPer(Level::k2M) + 3);
  Map(kGfn, Leaf(3));
  RcuReadGuard rcu;
  const ShadowPage* above = root_;
  for (Level level = Level::k1G; level >= Level::k4K; level = ChildOf(level)) {
    TdpCursor parent = CursorAt(kGfn, ParentOf(level));
    const ShadowPage& child =
        *TablePool::DescriptorOf(TableOf(parent.slot().Load()));
    EXPECT_EQ(child.role, PageRole::Direct(level, 1));
    EXPECT_EQ(child.role, above->role.Child());
    EXPECT_EQ(child.gfn, RoundDown(kGfn, ParentOf(level)));
    EXPECT_EQ(child.parent, &parent.slot());
    above = &child;
  }
}

// Covers: TDP-42
TEST_F(SpteUpdateTest, ALostLinkLeavesTheTableWithTheCallerAndUncounted) {
  MmuReadLocked lock(lock_, LockOp::kFault);
  RcuReadGuard rcu;
  TdpCursor first = CursorAt(Gfn(0), Level::k512G);
  TdpCursor second = CursorAt(Gfn(0), Level::k512G);
  ShadowPage* won = NewPage();
  ShadowPage* lost = NewPage();
  updater_.PrepareChild(first, *won);
  updater_.PrepareChild(second, *lost);
  EXPECT_TRUE(updater_.Link(lock, first, *won));
  EXPECT_FALSE(updater_.Link(lock, second, *lost));
  EXPECT_EQ(counters_.Tables(), 1u);
  EXPECT_EQ(TableOf(second.old_spte()), won->table);
  pool_.Return(lost);
}

// These tests run in both modes.
enum class Mode { kShared, kExclusive };
class RemoveTableTest : public SpteUpdateTest,
                        public ::testing::WithParamInterface<Mode> {
 protected:
  // Unlinks the table below the entry of `level` for `gfn`.
  void Unlink(Gfn gfn, Level level) {
    if (GetParam() == Mode::kShared) {
      MmuReadLocked lock(lock_, LockOp::kZap);
      RcuReadGuard rcu;
      TdpCursor c = CursorAt(gfn, level);
      EXPECT_TRUE(updater_.Update(lock, c, Spte::Initial()));
    } else {
      MmuWriteLocked lock(lock_, LockOp::kZap);
      RcuReadGuard rcu;
      TdpCursor c = CursorAt(gfn, level);
      updater_.Update(lock, c, Spte::Initial());
    }
  }
};

INSTANTIATE_TEST_SUITE_P(BothModes, RemoveTableTest,
                         ::testing::Values(Mode::kShared, Mode::kExclusive));

// Covers: TDP-28
TEST_P(RemoveTableTest, AWholeSubtreeGoesWithItsEntryAndLeavesTheCounts) {
  Map(Gfn(0), Leaf(0));
  Map(Gfn(9), Leaf(9));
  Map(Gfn(512), Leaf(512, Level::k2M), Level::k2M);
  Map(Gfn(1024), Leaf(1024));
  Map(Gfn(PagesPer(Level::k1G)), Leaf(PagesPer(Level::k1G), Level::k1G),
      Level::k1G);
  EXPECT_EQ(counters_.Tables(), 4u);
  EXPECT_EQ(pool_.tables_out(), 5u);
  Unlink(Gfn(0), Level::k512G);
  EXPECT_EQ(counters_.Tables(), 0u);
  EXPECT_EQ(counters_.Leafs(Level::k4K), 0u);
  EXPECT_EQ(counters_.Leafs(Level::k2M), 0u);
  EXPECT_EQ(counters_.Leafs(Level::k1G), 0u);
  RcuBarrier();
  EXPECT_EQ(pool_.tables_out(), 1u) << "the root";
}

// Covers: TDP-28, TDP-30
TEST_P(RemoveTableTest, AWalkerInARemovedTableFindsItFrozenAndNotYetFreed) {
  Map(Gfn(0), Leaf(0));
  Map(Gfn(7), Leaf(7));
  std::optional<RcuReadGuard> rcu(std::in_place);
  TdpCursor late = CursorAt(Gfn(9), Level::k4K);
  PageTable* table = TableOf(CursorAt(Gfn(0), Level::k2M).old_spte());
  std::thread([&] { Unlink(Gfn(0), Level::k2M); }).join();
  // This walker holds up the grace period, so the table is still in use.
  EXPECT_EQ(pool_.tables_out(), 4u);
  EXPECT_TRUE(table->entries[0].Load().IsFrozen());
  EXPECT_TRUE(table->entries[7].Load().IsFrozen());
  if (GetParam() == Mode::kShared) {
    // Empty entries are frozen as well, so that a fault that has already
    // reached the table cannot install anything.
    for (const SpteSlot& slot : table->entries) {
      ASSERT_TRUE(slot.Load().IsFrozen());
    }
    MmuReadLocked lock(lock_, LockOp::kFault);
    EXPECT_FALSE(updater_.Update(lock, late, Leaf(9)));
    EXPECT_TRUE(late.old_spte().IsFrozen());
    EXPECT_EQ(counters_.Leafs(Level::k4K), 0u);
  }
  rcu.reset();
  RcuBarrier();
  EXPECT_EQ(pool_.tables_out(), 3u);
}

// Covers: TDP-28, TDP-29
TEST_F(SpteUpdateTest, RemovalWaitsForWhoeverOwnsAFrozenEntry) {
  Map(Gfn(0), Leaf(0));
  std::optional<RcuReadGuard> rcu(std::in_place);
  SpteSlot& owned = CursorAt(Gfn(8), Level::k4K).slot();
  const SpteSlot& behind = CursorAt(Gfn(9), Level::k4K).slot();
  SpteSlot& parent = CursorAt(Gfn(0), Level::k2M).slot();
  owned.Store(Spte::Frozen());
  std::thread remover([&] {
    MmuReadLocked lock(lock_, LockOp::kZap);
    RcuReadGuard inner;
    TdpCursor c = CursorAt(Gfn(0), Level::k2M);
    EXPECT_TRUE(updater_.Update(lock, c, Spte::Initial()));
  });
  while (parent.Load().IsPresent()) std::this_thread::yield();
  while (counters_.Leafs(Level::k4K) != 0) std::this_thread::yield();
  // A remover that does not wait is done with the table now.
  for (int i = 0; i < 20; ++i) {
    EXPECT_FALSE(behind.Load().IsFrozen());
    std::this_thread::yield();  // to a thread that spins: may take long
  }
  EXPECT_EQ(counters_.Tables(), 3u) << "not done with the table";
  // The owner of the frozen entry installs its leaf. The remover removes that
  // leaf, too.
  counters_.AddLeafs(Level::k4K, 1);
  owned.Store(Leaf(8));
  remover.join();
  EXPECT_EQ(counters_.Leafs(Level::k4K), 0u);
  EXPECT_EQ(counters_.Tables(), 2u);
  rcu.reset();
}

// Covers: TDP-28, TDP-30
TEST_F(SpteUpdateTest, FaultsAndRemovalsInOneRegionLeakNothing) {
  Map(Gfn(512), Leaf(512));  // the tables above stay
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> installed{0};
  std::vector<std::thread> faulters;
  for (int t = 0; t < 2; ++t) {
    faulters.emplace_back([&, t] {
      uint64_t n = t;
      while (!stop.load()) {
        const Gfn gfn(n++ % 512);
        ShadowPage* page = NewPage();
        {
          MmuReadLocked lock(lock_, LockOp::kFault);
          RcuReadGuard rcu;
          TdpCursor c(root_->table, Level::k512G, GfnRange::Of(gfn, 1),
                      Level::k4K);
          for (; c.Valid(); c.Next()) {
            if (c.old_spte().IsFrozen()) break;
            if (c.level() == Level::k4K) {
              if (!c.old_spte().IsPresent()) {
                installed += updater_.Update(lock, c, Leaf(gfn.value()));
              }
              break;
            }
            if (c.old_spte().IsPresent()) continue;
            updater_.PrepareChild(c, *page);
            if (!updater_.Link(lock, c, *page)) break;
            page = nullptr;
          }
        }
        if (page != nullptr) pool_.Return(page);
      }
    });
  }
  for (int i = 0; i < 2000 || installed.load() < 100; ++i) {
    MmuReadLocked lock(lock_, LockOp::kZap);
    RcuReadGuard rcu;
    TdpCursor c = CursorAt(Gfn(0), Level::k2M);
    while (c.old_spte().IsPresent() &&
           !updater_.Update(lock, c, Spte::Initial())) {
    }
  }
  stop.store(true);
  for (std::thread& faulter : faulters) faulter.join();
  // The destructor empties the root and compares all counts with zero.
  RcuBarrier();
  EXPECT_EQ(pool_.tables_out(), counters_.Tables() + 1);
}

}  // namespace
}  // namespace mmu
