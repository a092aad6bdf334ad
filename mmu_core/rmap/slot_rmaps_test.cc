#include "mmu_core/rmap/slot_rmaps.h"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/rmap/pte_list_cache.h"
#include "mmu_core/rmap/pte_list_pool.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {
namespace {

TEST(SlotRmapsTest, EachBlockThatTheSlotTouchesHasAnRmap) {
  const auto one_more = SlotRmaps::TryCreate(GfnRange::Of(Gfn(1), 512));
  EXPECT_EQ(one_more->head_count(Level::k4K), 512u);
  EXPECT_EQ(one_more->head_count(Level::k2M), 2u);
  EXPECT_EQ(one_more->head_count(Level::k1G), 1u);
  const auto aligned = SlotRmaps::TryCreate(GfnRange::Of(Gfn(512), 512));
  EXPECT_EQ(aligned->head_count(Level::k2M), 1u);
  const auto two_gib =
      SlotRmaps::TryCreate(GfnRange::Of(Gfn(0x40000 - 1), 0x40000 + 2));
  EXPECT_EQ(two_gib->head_count(Level::k2M), 514u);
  EXPECT_EQ(two_gib->head_count(Level::k1G), 3u);
}

TEST(SlotRmapsTest, TheGfnsOfABlockShareItsRmapAndNoOthers) {
  const auto rmaps = SlotRmaps::TryCreate(GfnRange::Of(Gfn(510), 1024));
  EXPECT_NE(&rmaps->Head(Gfn(510), Level::k4K),
            &rmaps->Head(Gfn(511), Level::k4K));
  EXPECT_EQ(&rmaps->Head(Gfn(510), Level::k2M),
            &rmaps->Head(Gfn(511), Level::k2M));
  EXPECT_NE(&rmaps->Head(Gfn(511), Level::k2M),
            &rmaps->Head(Gfn(512), Level::k2M));
  EXPECT_EQ(&rmaps->Head(Gfn(512), Level::k2M),
            &rmaps->Head(Gfn(1023), Level::k2M));
  EXPECT_EQ(&rmaps->Head(Gfn(510), Level::k1G),
            &rmaps->Head(Gfn(1533), Level::k1G));
  // The last rmap of one level is not the first of the next.
  EXPECT_NE(&rmaps->Head(Gfn(1533), Level::k4K),
            &rmaps->Head(Gfn(510), Level::k2M));
  EXPECT_NE(&rmaps->Head(Gfn(1533), Level::k2M),
            &rmaps->Head(Gfn(510), Level::k1G));
}

TEST(SlotRmapsTest, RmapsAndCountsBeginEmptyAndDoNotOverlap) {
  const GfnRange range = GfnRange::Of(Gfn(100), 1000);
  const auto rmaps = SlotRmaps::TryCreate(range);
  PteListPool pool;
  PteListCache cache(pool);
  MmuCounters counters;
  MmuLock mmu_lock;
  MmuWriteLocked lock(mmu_lock, LockOp::kFault);
  SpteSlot spte;
  // The last rmap of each level, where an overlap with the counts would show.
  const auto heads = {&rmaps->Head(Gfn(1099), Level::k4K),
                      &rmaps->Head(Gfn(1099), Level::k2M),
                      &rmaps->Head(Gfn(1099), Level::k1G)};
  for (RmapHead* head : heads) {
    EXPECT_TRUE(head->empty());
    head->Add(lock, spte, cache, counters);
  }
  for (Gfn gfn = range.start; gfn < range.end; gfn += 1) {
    ASSERT_EQ(rmaps->WriteTrackers(gfn), 0);
    rmaps->AddWriteTracker(lock, gfn);
  }
  for (RmapHead* head : heads) {
    EXPECT_EQ(head->Count(lock), 1u);
    head->Remove(lock, spte, counters);
    EXPECT_TRUE(head->empty());
  }
  for (Gfn gfn = range.start; gfn < range.end; gfn += 1) {
    ASSERT_EQ(rmaps->WriteTrackers(gfn), 1);
  }
  EXPECT_EQ(rmaps->allocated_bytes(), (1000 + 3 + 1) * 8 + 1000 * 2u);
}

TEST(SlotRmapsTest, AGfnIsWriteTrackedUntilItsLastTrackerHasLeft) {
  const auto rmaps = SlotRmaps::TryCreate(GfnRange::Of(Gfn(8), 4));
  MmuLock mmu_lock;
  MmuWriteLocked lock(mmu_lock, LockOp::kFault);
  rmaps->AddWriteTracker(lock, Gfn(9));
  rmaps->AddWriteTracker(lock, Gfn(9));
  EXPECT_EQ(rmaps->WriteTrackers(Gfn(9)), 2);
  rmaps->RemoveWriteTracker(lock, Gfn(9));
  EXPECT_TRUE(rmaps->IsWriteTracked(Gfn(9)));
  rmaps->RemoveWriteTracker(lock, Gfn(9));
  EXPECT_FALSE(rmaps->IsWriteTracked(Gfn(9)));
  EXPECT_FALSE(rmaps->IsWriteTracked(Gfn(8)));
  EXPECT_FALSE(rmaps->IsWriteTracked(Gfn(10)));
}

TEST(SlotRmapsTest, AWalkFindsWhatIsInUse) {
  const GfnRange range = GfnRange::Of(Gfn(100), 1000);
  const auto rmaps = SlotRmaps::TryCreate(range);
  PteListPool pool;
  PteListCache cache(pool);
  MmuCounters counters;
  MmuLock mmu_lock;
  MmuWriteLocked lock(mmu_lock, LockOp::kFault);
  SpteSlot sptes[3];
  RmapHead& small = rmaps->Head(Gfn(700), Level::k4K);
  RmapHead& first = rmaps->Head(Gfn(100), Level::k2M);
  RmapHead& later = rmaps->Head(Gfn(600), Level::k2M);
  small.Add(lock, sptes[0], cache, counters);
  first.Add(lock, sptes[1], cache, counters);
  later.Add(lock, sptes[2], cache, counters);
  const auto walk = [&](Level level) {
    std::vector<std::pair<Gfn, const RmapHead*>> found;
    rmaps->ForEachRmap(level, [&](Gfn block, const RmapHead& head) {
      found.emplace_back(block, &head);
    });
    return found;
  };
  using Found = std::vector<std::pair<Gfn, const RmapHead*>>;
  EXPECT_EQ(walk(Level::k4K), (Found{{Gfn(700), &small}}));
  EXPECT_EQ(walk(Level::k2M), (Found{{Gfn(0), &first}, {Gfn(512), &later}}));
  EXPECT_EQ(walk(Level::k1G), Found{});
  small.Remove(lock, sptes[0], counters);
  first.Remove(lock, sptes[1], counters);
  later.Remove(lock, sptes[2], counters);

  rmaps->AddWriteTracker(lock, Gfn(1099));
  rmaps->AddWriteTracker(lock, Gfn(1099));
  rmaps->AddWriteTracker(lock, Gfn(100));
  std::vector<std::pair<Gfn, int>> tracked;
  rmaps->ForEachWriteTracked(
      [&](Gfn gfn, uint16_t count) { tracked.emplace_back(gfn, count); });
  EXPECT_EQ(tracked,
            (std::vector<std::pair<Gfn, int>>{{Gfn(100), 1}, {Gfn(1099), 2}}));
}

TEST(SlotRmapsDeathTest, ACountNeitherWrapsAroundNorFallsBelowZero) {
  const auto rmaps = SlotRmaps::TryCreate(GfnRange::Of(Gfn(8), 4));
  MmuLock mmu_lock;
  MmuWriteLocked lock(mmu_lock, LockOp::kFault);
  EXPECT_DEATH(rmaps->RemoveWriteTracker(lock, Gfn(8)), "before > 0");
  for (int i = 0; i < 65535; ++i) rmaps->AddWriteTracker(lock, Gfn(8));
  EXPECT_EQ(rmaps->WriteTrackers(Gfn(8)), 65535);
  EXPECT_DEATH(rmaps->AddWriteTracker(lock, Gfn(8)), "before < ");
}

TEST(SlotRmapsDeathTest, AGfnOutsideOfTheSlotIsRefused) {
  const auto rmaps = SlotRmaps::TryCreate(GfnRange::Of(Gfn(8), 4));
  EXPECT_DEATH(rmaps->Head(Gfn(7), Level::k1G), "Contains");
  EXPECT_DEATH(rmaps->Head(Gfn(12), Level::k4K), "Contains");
  EXPECT_DEATH(rmaps->WriteTrackers(Gfn(12)), "Contains");
  EXPECT_DEATH(rmaps->Head(Gfn(8), Level::k512G), "kMaxLeafLevel");
}

TEST(SlotRmapsTest, WithoutMemoryThereAreNone) {
  EXPECT_EQ(SlotRmaps::TryCreate(GfnRange::Of(Gfn(0), uint64_t{1} << 50)),
            nullptr);
}

}  // namespace
}  // namespace mmu
