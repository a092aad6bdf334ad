#include "mmu_core/rmap/rmap.h"

#include <array>
#include <cstdint>
#include <set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/rmap/pte_list_cache.h"
#include "mmu_core/rmap/pte_list_desc.h"
#include "mmu_core/rmap/pte_list_pool.h"
#include "mmu_core/rmap/rmap_test_util.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {
namespace {

using ::mmu::testing::ContentsOf;
using ::mmu::testing::CountsOf;
using ::mmu::testing::DescsOf;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class RmapTest : public ::testing::Test {
 protected:
  RmapTest() { TopUp(cache_, kSplitPteLists); }
  // Checks that an empty rmap leaves no descriptor in use.
  ~RmapTest() override {
    rmap_.ZapAll(
        lock_, [](SpteSlot&) {}, counters_);
    EXPECT_EQ(DescsInLists(), 0);
  }

  // Fills a cache without the lock, which the test holds otherwise. Not
  // analysed, because the lock is held again at the end.
  void TopUp(PteListCache& cache,
             PteListNeed need) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    lock_.Unlock();
    EXPECT_TRUE(cache.TopUp(need).ok());
    lock_.Relock();
  }

  uint64_t Add(int i) { return rmap_.Add(lock_, sptes_[i], cache_, counters_); }
  void AddMany(int first, int count) {
    for (int i = first; i < first + count; ++i) Add(i);
  }
  void Remove(int i) { rmap_.Remove(lock_, sptes_[i], counters_); }

  uintptr_t AddressOf(int i) const {
    return reinterpret_cast<uintptr_t>(&sptes_[i]);
  }
  std::multiset<const SpteSlot*> Sptes(int first, int count) const {
    std::multiset<const SpteSlot*> sptes;
    for (int i = first; i < first + count; ++i) sptes.insert(&sptes_[i]);
    return sptes;
  }
  std::vector<int> IndexesOf(const PteListDesc& desc) const {
    std::vector<int> indexes;
    for (uint32_t i = 0; i < desc.count; ++i) {
      indexes.push_back(static_cast<int>(desc.sptes[i] - sptes_.data()));
    }
    return indexes;
  }
  int DescsInLists() const {
    return static_cast<int>(pool_.Snapshot().descs_out) - cache_.count();
  }

  PteListPool pool_;
  PteListCache cache_{pool_};
  MmuCounters counters_;
  MmuLock mmu_lock_;
  MmuWriteLocked lock_{mmu_lock_, LockOp::kFault};
  std::array<SpteSlot, 2000> sptes_;
  RmapHead rmap_;
};

// Covers: SHD-11
TEST_F(RmapTest, TheWordIsNothingOrTheOnlySpteOrAListAndItsLock) {
  EXPECT_EQ(rmap_.WordForTest(), 0u);
  EXPECT_TRUE(rmap_.empty());
  {
    RmapReadLocked reader(rmap_, counters_);
    EXPECT_EQ(rmap_.WordForTest(), 0u) << "an empty one is not locked";
    EXPECT_FALSE(reader.Entries().Valid());
  }
  Add(0);
  EXPECT_EQ(rmap_.WordForTest(), AddressOf(0));
  {
    RmapReadLocked reader(rmap_, counters_);
    EXPECT_EQ(rmap_.WordForTest(), AddressOf(0) | 2);
    EXPECT_EQ(&reader.Entries().sptep(), &sptes_[0]);
  }
  EXPECT_EQ(rmap_.WordForTest(), AddressOf(0));
  Add(1);
  const uintptr_t word = rmap_.WordForTest();
  EXPECT_EQ(word & 3, 1u);
  const auto* desc = reinterpret_cast<const PteListDesc*>(word - 1);
  EXPECT_EQ(desc->next, nullptr);
  EXPECT_EQ(desc->tail_count, 0u);
  EXPECT_THAT(IndexesOf(*desc), ElementsAre(0, 1));
  {
    RmapReadLocked reader(rmap_, counters_);
    EXPECT_EQ(rmap_.WordForTest(), word | 2);
  }
  EXPECT_EQ(rmap_.WordForTest(), word);
  EXPECT_EQ(counters_.rmap_lock_contended.load(), 0u) << "nobody waited";
}

// Covers: SHD-12
TEST_F(RmapTest, FifteenAddsMakeTwoDescriptors) {
  for (uint64_t i = 0; i < 15; ++i) {
    EXPECT_EQ(Add(static_cast<int>(i)), i) << "the count before";
    EXPECT_EQ(rmap_.Count(lock_), i + 1);
    EXPECT_EQ(rmap_.WhyMalformed(lock_), "");
  }
  EXPECT_THAT(CountsOf(rmap_), ElementsAre(1, 14));
  EXPECT_EQ(DescsInLists(), 2);
  const PteListDesc& head = *DescsOf(rmap_)[0];
  EXPECT_EQ(head.count + head.tail_count, 15u);
  EXPECT_EQ(DescsOf(rmap_)[1]->tail_count, 0u);
  EXPECT_EQ(ContentsOf(rmap_), Sptes(0, 15));
}

// Covers: SHD-12
TEST_F(RmapTest, OnlyTheHeadIsPartlyFilled) {
  AddMany(0, 14 * 4 + 3);
  EXPECT_THAT(CountsOf(rmap_), ElementsAre(3, 14, 14, 14, 14));
  EXPECT_EQ(DescsOf(rmap_)[0]->tail_count, 56u);
  EXPECT_EQ(DescsOf(rmap_)[3]->tail_count, 14u);
  // The removed SPTE is in the oldest descriptor.
  Remove(0);
  EXPECT_THAT(CountsOf(rmap_), ElementsAre(2, 14, 14, 14, 14));
  EXPECT_EQ(rmap_.Count(lock_), 58u);
  Add(0);
  EXPECT_THAT(CountsOf(rmap_), ElementsAre(3, 14, 14, 14, 14));
  EXPECT_EQ(rmap_.WhyMalformed(lock_), "");
}

TEST_F(RmapTest, DescriptorsThatBreakARuleAreFound) {
  AddMany(0, 14 + 3);
  const auto desc = [this](size_t i) {
    return const_cast<PteListDesc*>(DescsOf(rmap_)[i]);
  };
  desc(0)->tail_count = 13;
  EXPECT_EQ(rmap_.WhyMalformed(lock_),
            "a descriptor counts 14 SPTEs from itself on, the one before says "
            "13");
  desc(0)->tail_count = 14;
  desc(1)->tail_count = 1;
  EXPECT_EQ(rmap_.WhyMalformed(lock_),
            "a descriptor counts 15 SPTEs from itself on, the one before says "
            "14");
  desc(0)->tail_count = 15;
  EXPECT_EQ(rmap_.WhyMalformed(lock_),
            "the last descriptor counts 1 SPTEs behind it");
  desc(0)->tail_count = 14;
  desc(1)->tail_count = 0;
  desc(1)->count = 13;
  EXPECT_EQ(rmap_.WhyMalformed(lock_), "a later descriptor has 13 SPTEs");
  desc(1)->count = 14;
  desc(0)->count = 0;
  EXPECT_EQ(rmap_.WhyMalformed(lock_), "a head descriptor has 0 SPTEs");
  desc(0)->count = 3;
  desc(0)->tail_count = 0;
  EXPECT_EQ(rmap_.WhyMalformed(lock_),
            "there is a descriptor behind the last SPTE");
  desc(0)->tail_count = 14;
  EXPECT_EQ(rmap_.WhyMalformed(lock_), "");
}

// Covers: SHD-12
TEST_F(RmapTest, TheLastOfTheHeadMovesIntoTheHole) {
  AddMany(0, 17);  // the head has 14, 15, 16
  Remove(5);
  EXPECT_THAT(IndexesOf(*DescsOf(rmap_)[1]),
              ElementsAre(0, 1, 2, 3, 4, 16, 6, 7, 8, 9, 10, 11, 12, 13));
  EXPECT_THAT(IndexesOf(*DescsOf(rmap_)[0]), ElementsAre(14, 15));
  Remove(14);
  EXPECT_THAT(IndexesOf(*DescsOf(rmap_)[0]), ElementsAre(15));
  Remove(15);  // the removed SPTE is the last of the head itself
  EXPECT_THAT(CountsOf(rmap_), ElementsAre(14)) << "an empty head is freed";
  EXPECT_EQ(DescsInLists(), 1);
}

// Covers: SHD-12
TEST_F(RmapTest, AListOfOneKeepsItsDescriptorAndTheLastLeavesNothing) {
  AddMany(0, 2);
  Remove(0);
  EXPECT_THAT(CountsOf(rmap_), ElementsAre(1));
  EXPECT_EQ(rmap_.Count(lock_), 1u);
  EXPECT_EQ(DescsInLists(), 1);
  EXPECT_EQ(Add(2), 1u);
  EXPECT_EQ(DescsInLists(), 1);
  Remove(1);
  Remove(2);
  EXPECT_EQ(rmap_.WordForTest(), 0u);
  EXPECT_EQ(DescsInLists(), 0);
  Add(3);
  Remove(3);
  EXPECT_EQ(rmap_.WordForTest(), 0u);
}

TEST_F(RmapTest, AWalkMeetsEachSpteOnceHoweverManyThereAre) {
  for (const int count : {0, 1, 2, 14, 15, 28, 29, 1000}) {
    AddMany(0, count);
    std::multiset<const SpteSlot*> met;
    for (RmapIterator it = rmap_.Entries(lock_); it.Valid(); it.Next()) {
      met.insert(&it.sptep());
    }
    EXPECT_EQ(met, Sptes(0, count));
    rmap_.ZapAll(
        lock_, [](SpteSlot&) {}, counters_);
  }
}

TEST_F(RmapTest, ZapAllDropsEachUnderTheLockAndLeavesNothing) {
  EXPECT_FALSE(rmap_.ZapAll(
      lock_, [](SpteSlot&) { ADD_FAILURE(); }, counters_));
  for (const int count : {1, 2, 30, 1002}) {
    AddMany(0, count);
    std::multiset<const SpteSlot*> dropped;
    EXPECT_TRUE(rmap_.ZapAll(
        lock_,
        [&](SpteSlot& sptep) {
          EXPECT_EQ(rmap_.WordForTest() & 2, 2u);
          dropped.insert(&sptep);
        },
        counters_));
    EXPECT_EQ(dropped, Sptes(0, count));
    EXPECT_EQ(rmap_.WordForTest(), 0u);
    EXPECT_EQ(DescsInLists(), 0);
  }
}

// A reader without mmu_lock sets bit 1 of the head. A holder of mmu_lock that
// changes nothing ignores this bit.
TEST_F(RmapTest, AReadersLockDoesNotShowInTheCountNorInAWalk) {
  for (const int count : {1, 2, 20}) {
    AddMany(0, count);
    {
      RmapReadLocked reader(rmap_, counters_);
      EXPECT_EQ(rmap_.Count(lock_), static_cast<uint64_t>(count));
      std::multiset<const SpteSlot*> met, read;
      for (RmapIterator it = rmap_.Entries(lock_); it.Valid(); it.Next()) {
        met.insert(&it.sptep());
      }
      for (RmapIterator it = reader.Entries(); it.Valid(); it.Next()) {
        read.insert(&it.sptep());
      }
      EXPECT_EQ(met, Sptes(0, count));
      EXPECT_EQ(read, met);
    }
    rmap_.ZapAll(
        lock_, [](SpteSlot&) {}, counters_);
  }
}

TEST_F(RmapTest, AnAddTakesOneDescriptorAtMostAndNoneForTheFirst) {
  for (int i = 0; i < 100; ++i) {
    const int before = cache_.count();
    Add(i);
    // The second SPTE makes a list, and each 14 more need a new head.
    const bool needs_one = i == 1 || (i >= 14 && i % 14 == 0);
    EXPECT_EQ(before - cache_.count(), needs_one ? 1 : 0) << i;
  }
}

// The most that a split of a huge SPTE may need: one descriptor for the rmap of
// each of the 512 small SPTEs, if that has one SPTE or a full head, and one for
// the parents of the new table.
TEST_F(RmapTest, TheWorstSplitTakesAllThatIsToppedUpForIt) {
  std::vector<RmapHead> rmaps(512);
  SpteSlot other[14];
  for (size_t i = 0; i < rmaps.size(); ++i) {
    PteListCache others(pool_);
    TopUp(others, {.min = 1, .capacity = 1});
    const int count = i % 2 == 0 ? 1 : 14;
    for (int k = 0; k < count; ++k) {
      rmaps[i].Add(lock_, other[k], others, counters_);
    }
  }
  Add(0);  // the table has one parent
  const int before = cache_.count();
  for (size_t i = 0; i < rmaps.size(); ++i) {
    rmaps[i].Add(lock_, sptes_[i + 2], cache_, counters_);
  }
  Add(1);
  EXPECT_EQ(before - cache_.count(), kSplitPteLists.min);
  for (RmapHead& rmap : rmaps) {
    rmap.ZapAll(
        lock_, [](SpteSlot&) {}, counters_);
  }
}

using RmapDeathTest = RmapTest;

TEST_F(RmapDeathTest, AnSpteThatIsNotInTheRmapCannotBeRemoved) {
  EXPECT_DEATH(Remove(0), "old != 0");
  Add(0);
  EXPECT_DEATH(Remove(1), "old == WordOf");
  Add(1);
  EXPECT_DEATH(Remove(2), "is in its rmap");
}

}  // namespace
}  // namespace mmu
