// RACE-28 of mmu_core/LOCKING.md: readers without mmu_lock against a thread
// that changes an rmap. First step by step, then with real threads.

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/rmap/pte_list_cache.h"
#include "mmu_core/rmap/pte_list_pool.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/rmap/rmap_test_util.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/interleaving.h"

namespace mmu {
namespace {

using ::mmu::testing::CountsOf;
using ::mmu::testing::Interleaving;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

Spte PresentSpte(uint64_t pfn) {
  return Spte(spte_bits::kMmuPresent | pfn << kPageShift);
}

class RmapRaceTest : public ::testing::Test {
 protected:
  RmapRaceTest() { EXPECT_TRUE(cache_.TopUp(kFaultPteLists).ok()); }
  ~RmapRaceTest() override {
    MmuWriteLocked lock(mmu_lock_, LockOp::kZap);
    rmap_.ZapAll(
        lock, [](SpteSlot&) {}, counters_);
  }

  void Add(int i) {
    MmuWriteLocked lock(mmu_lock_, LockOp::kFault);
    sptes_[i].Store(PresentSpte(i));
    rmap_.Add(lock, sptes_[i], cache_, counters_);
  }
  // Drops an SPTE as a zap does: first the SPTE, then its place in the rmap.
  void Drop(int i) {
    MmuWriteLocked lock(mmu_lock_, LockOp::kZap);
    sptes_[i].Store(Spte::Initial());
    rmap_.Remove(lock, sptes_[i], counters_);
  }
  // Walks the rmap like an ageing and returns the pfns of the present SPTEs.
  std::vector<uint64_t> ReadPresent() {
    std::vector<uint64_t> present;
    RmapReadLocked reader(rmap_, counters_);
    for (RmapIterator it = reader.Entries(); it.Valid(); it.Next()) {
      const Spte spte = it.sptep().Load();
      if (spte.IsPresent()) present.push_back(spte.pfn().value());
    }
    return present;
  }
  uint64_t contended() const { return counters_.rmap_lock_contended.load(); }

  PteListPool pool_;
  PteListCache cache_{pool_};
  MmuCounters counters_;
  MmuLock mmu_lock_;
  std::array<SpteSlot, 20> sptes_;
  RmapHead rmap_;
};

// Steps 1 to 3: the removal waits for the reader to finish. The reader meets
// the dropped SPTE, which is no longer present.
TEST_F(RmapRaceTest, Race28RemovalWaitsForAReaderWhoMeetsTheDroppedSpte) {
  for (int i = 0; i < 3; ++i) Add(i);
  std::vector<uint64_t> present;
  Interleaving threads;
  threads.Add("age", [&] { present = ReadPresent(); });
  threads.Add("zap", [&] { Drop(1); });
  threads.RunTo("age", HookPoint::kRmapLockToWalk);
  threads.RunTo("zap", HookPoint::kRmapContended);
  EXPECT_FALSE(sptes_[1].Load().IsPresent());
  EXPECT_THAT(CountsOf(rmap_), ElementsAre(3)) << "still in the list";
  threads.RunToEnd("age");
  EXPECT_THAT(present, UnorderedElementsAre(0, 2));
  threads.RunToEnd("zap");
  EXPECT_THAT(CountsOf(rmap_), ElementsAre(2));
  EXPECT_THAT(ReadPresent(), UnorderedElementsAre(0, 2));
  EXPECT_EQ(contended(), 1u);
}

// Steps 4 to 6: a reader waits for the lock of an rmap that becomes empty
// meanwhile. It must use the new value of the head. The descriptor is in
// another list by then.
TEST_F(RmapRaceTest, Race28ReaderWhoWaitedForARemovalFindsNothing) {
  Add(0);
  Add(1);
  Drop(0);
  ASSERT_THAT(CountsOf(rmap_), ElementsAre(1));
  std::vector<uint64_t> present;
  RmapHead other;
  Interleaving threads;
  threads.Add("zap", [&] { Drop(1); });
  threads.Add("age", [&] { present = ReadPresent(); });
  threads.RunTo("zap", HookPoint::kRmapLockToChange);
  threads.RunTo("age", HookPoint::kRmapContended);
  threads.RunToEnd("zap");
  {
    // Puts the descriptor that was just freed into another list.
    cache_.Clear();
    ASSERT_TRUE(cache_.TopUp(kFaultPteLists).ok());
    MmuWriteLocked lock(mmu_lock_, LockOp::kFault);
    for (int i = 2; i < 5; ++i) {
      sptes_[i].Store(PresentSpte(i));
      other.Add(lock, sptes_[i], cache_, counters_);
    }
  }
  threads.RunToEnd("age");
  EXPECT_THAT(present, IsEmpty());
  EXPECT_EQ(rmap_.WordForTest(), 0u) << "neither locked nor brought back";
  EXPECT_EQ(contended(), 1u);
  MmuWriteLocked lock(mmu_lock_, LockOp::kZap);
  other.ZapAll(
      lock, [](SpteSlot&) {}, counters_);
}

// The waiting reader has seen a descriptor that is no longer the head.
TEST_F(RmapRaceTest, Race28ReaderWhoWaitedForAnAddSeesTheNewHead) {
  for (int i = 0; i < 14; ++i) Add(i);
  std::vector<uint64_t> present;
  Interleaving threads;
  threads.Add("fault", [&] { Add(14); });
  threads.Add("age", [&] { present = ReadPresent(); });
  threads.RunTo("fault", HookPoint::kRmapLockToChange);
  threads.RunTo("age", HookPoint::kRmapContended);
  threads.RunToEnd("fault");
  threads.RunToEnd("age");
  EXPECT_EQ(present.size(), 15u);
  EXPECT_THAT(CountsOf(rmap_), ElementsAre(1, 14));
}

TEST_F(RmapRaceTest, Race28ZapOfAllWaitsForAReader) {
  for (int i = 0; i < 20; ++i) Add(i);
  std::vector<uint64_t> present;
  Interleaving threads;
  threads.Add("age", [&] { present = ReadPresent(); });
  threads.Add("zap", [&] {
    MmuWriteLocked lock(mmu_lock_, LockOp::kZap);
    rmap_.ZapAll(
        lock, [](SpteSlot& sptep) { sptep.Store(Spte::Initial()); }, counters_);
  });
  threads.RunTo("age", HookPoint::kRmapLockToWalk);
  threads.RunTo("zap", HookPoint::kRmapContended);
  threads.RunToEnd("age");
  EXPECT_EQ(present.size(), 20u) << "nothing was dropped before";
  threads.RunToEnd("zap");
  EXPECT_TRUE(rmap_.empty());
}

TEST_F(RmapRaceTest, Race28ReadersTakeTurns) {
  Add(0);
  Add(1);
  std::vector<uint64_t> first, second;
  Interleaving threads;
  threads.Add("one", [&] { first = ReadPresent(); });
  threads.Add("two", [&] { second = ReadPresent(); });
  threads.RunTo("one", HookPoint::kRmapLockToWalk);
  threads.RunTo("two", HookPoint::kRmapContended);
  threads.RunToEnd("one");
  threads.RunToEnd("two");
  EXPECT_THAT(first, UnorderedElementsAre(0, 1));
  EXPECT_THAT(second, UnorderedElementsAre(0, 1));
  EXPECT_EQ(contended(), 1u);
}

// --- Real threads ---

// Two threads fault and zap, two threads age without mmu_lock. Each SPTE names
// the rmap it belongs to, and its memory is freed after its removal.
// Descriptors move from rmap to rmap. A reader on a list that is no longer its
// rmap's meets an SPTE of another rmap, or freed memory, which is overwritten
// before (and which sanitizers report).
TEST(RmapStressTest, ReadersWithoutMmuLockOnlyMeetSptesOfTheirRmap) {
  constexpr size_t kRmaps = 3;
  constexpr int kChangesPerWriter = 20000;
  constexpr uint64_t kFreed = 0xdead;

  struct Rmap {
    RmapHead head;
    std::vector<std::unique_ptr<SpteSlot>> sptes;  // under mmu_lock write
  };
  PteListPool pool;
  MmuCounters counters;
  MmuLock mmu_lock;
  std::array<Rmap, kRmaps> rmaps;
  std::atomic<bool> done{false};
  std::atomic<uint64_t> met{0}, strange{0};

  const auto drop = [](SpteSlot& sptep) { sptep.Store(Spte::Initial()); };
  const auto free_all = [](std::vector<std::unique_ptr<SpteSlot>>& sptes) {
    for (auto& sptep : sptes) sptep->Store(PresentSpte(kFreed));
    sptes.clear();
  };
  const auto write = [&](uint32_t seed) {
    std::mt19937 random(seed);
    PteListCache cache(pool);
    for (int i = 0; i < kChangesPerWriter; ++i) {
      ASSERT_TRUE(cache.TopUp(kFaultPteLists).ok());
      const size_t r = random() % kRmaps;
      const uint32_t what = random() % 100;
      MmuWriteLocked lock(mmu_lock, LockOp::kFault);
      auto& [head, sptes] = rmaps[r];
      if (what == 0) {
        head.ZapAll(lock, drop, counters);
        free_all(sptes);
      } else if (what < 50 && sptes.size() < 40) {
        sptes.push_back(std::make_unique<SpteSlot>());
        sptes.back()->Store(PresentSpte(r));
        head.Add(lock, *sptes.back(), cache, counters);
      } else if (!sptes.empty()) {
        std::swap(sptes[random() % sptes.size()], sptes.back());
        drop(*sptes.back());
        head.Remove(lock, *sptes.back(), counters);
        sptes.back()->Store(PresentSpte(kFreed));
        sptes.pop_back();
      }
    }
  };
  const auto read = [&] {
    while (!done.load()) {
      for (size_t r = 0; r < kRmaps; ++r) {
        RmapReadLocked reader(rmaps[r].head, counters);
        for (RmapIterator it = reader.Entries(); it.Valid(); it.Next()) {
          const Spte spte = it.sptep().Load();
          met.fetch_add(1, std::memory_order_relaxed);
          if (spte != Spte::Initial() && spte != PresentSpte(r)) {
            strange.fetch_add(1);
          }
        }
      }
      std::this_thread::yield();
    }
  };
  std::vector<std::thread> readers, writers;
  for (int i = 0; i < 2; ++i) readers.emplace_back(read);
  for (uint32_t seed = 1; seed <= 2; ++seed) {
    writers.emplace_back([&, seed] { write(seed); });
  }
  for (std::thread& writer : writers) writer.join();
  done.store(true);
  for (std::thread& reader : readers) reader.join();

  EXPECT_EQ(strange.load(), 0u);
  EXPECT_GT(met.load(), 0u);
  MmuWriteLocked lock(mmu_lock, LockOp::kZap);
  for (Rmap& rmap : rmaps) {
    EXPECT_EQ(rmap.head.Count(lock), rmap.sptes.size());
    rmap.head.ZapAll(lock, drop, counters);
  }
  EXPECT_EQ(pool.Snapshot().descs_out, 0u);
}

}  // namespace
}  // namespace mmu
