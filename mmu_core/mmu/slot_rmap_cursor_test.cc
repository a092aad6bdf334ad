#include "mmu_core/rmap/slot_rmap_cursor.h"

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/rmap/pte_list_cache.h"
#include "mmu_core/rmap/pte_list_pool.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tlb/remote_flush.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t k1GPages = PagesPer(Level::k1G);

// Stands in for a lock witness: it can be contended all the time, and it
// records each yield.
class FakeLock {
 public:
  FakeLock(RemoteTlb& tlb, std::vector<std::string>& trace)
      : tlb_(tlb), trace_(trace) {}

  bool NeedYield() const { return contended; }
  void CountWork(int64_t) {}
  int64_t work() const { return 0; }
  int64_t held_since() const { return 0; }
  void Yield() {
    trace_.push_back(absl::StrFormat(
        "yield after %d flushes", tlb_.Snapshot().remote_tlb_flush_requests));
  }

  bool contended = true;

 private:
  RemoteTlb& tlb_;
  std::vector<std::string>& trace_;
};

// A slot that begins and ends in the middle of a GiB.
class SlotRmapCursorTest : public ::testing::Test {
 protected:
  ~SlotRmapCursorTest() override {
    MmuWriteLocked lock(mmu_lock_, LockOp::kZap);
    for (RmapHead* head : used_) {
      head->ZapAll(
          lock, [](SpteSlot&) {}, counters_);
    }
  }

  void Map(uint64_t gfn, Level level) {
    MmuWriteLocked lock(mmu_lock_, LockOp::kFault);
    RmapHead& head = rmaps_->Head(Gfn(gfn), level);
    head.Add(lock, sptes_.emplace_back(), cache_, counters_);
    used_.push_back(&head);
  }

  // The rmap heads with entries that a walk finds, each as "level:gfn".
  std::vector<std::string> Walk(GfnRange range, Level first, Level last) {
    std::vector<std::string> met;
    for (SlotRmapCursor c(*rmaps_, range, first, last); c.Valid(); c.Next()) {
      if (!c.head().empty()) met.push_back(Name(c));
    }
    return met;
  }
  static std::string Name(const SlotRmapCursor& c) {
    return absl::StrFormat("%d:%x", ToInt(c.level()), c.gfn().value());
  }

  PteListPool pool_;
  PteListCache cache_{pool_};
  MmuCounters counters_;
  MmuLock mmu_lock_;
  RemoteTlb tlb_;
  const GfnRange slot_ = GfnRange::Of(Gfn(0x1100), 2 * k1GPages);
  const std::unique_ptr<SlotRmaps> rmaps_ = SlotRmaps::TryCreate(slot_);
  std::deque<SpteSlot> sptes_;
  std::vector<RmapHead*> used_;
};

// Covers: SHD-18
TEST_F(SlotRmapCursorTest, LevelByLevelFromLowToHighByAscendingGfn) {
  Map(0x40000, Level::k1G);
  Map(0x41234, Level::k2M);
  Map(0x1200, Level::k2M);
  Map(0x81000, Level::k4K);
  Map(0x1100, Level::k4K);
  Map(0x1101, Level::k4K);
  EXPECT_THAT(Walk(slot_, Level::k4K, Level::k1G),
              ElementsAre("1:1100", "1:1101", "1:81000", "2:1200", "2:41200",
                          "3:40000"));
  EXPECT_THAT(Walk(slot_, Level::k2M, Level::k1G),
              ElementsAre("2:1200", "2:41200", "3:40000"));
  EXPECT_THAT(Walk(slot_, Level::k2M, Level::k2M),
              ElementsAre("2:1200", "2:41200"));
}

TEST_F(SlotRmapCursorTest, BlocksThatOverlapTheRangeAreMetAndNoOthers) {
  for (const uint64_t gfn : {0x1fff, 0x2000, 0x2001, 0x2002}) {
    Map(gfn, Level::k4K);
  }
  for (const uint64_t gfn : {0x1e00, 0x2000, 0x2200}) Map(gfn, Level::k2M);
  Map(0x2000, Level::k1G);
  Map(0x40000, Level::k1G);
  EXPECT_THAT(Walk(GfnRange::Of(Gfn(0x2001), 1), Level::k4K, Level::k1G),
              ElementsAre("1:2001", "2:2001", "3:2001"));
  EXPECT_THAT(
      Walk({Gfn(0x1fff), Gfn(0x2002)}, Level::k4K, Level::k1G),
      ElementsAre("1:1fff", "1:2000", "1:2001", "2:1fff", "2:2000", "3:1fff"));
  EXPECT_THAT(Walk({Gfn(0x2002), Gfn(0x2002)}, Level::k4K, Level::k1G),
              IsEmpty());
}

TEST_F(SlotRmapCursorTest, TheFirstAndTheLastOfASlotAreMet) {
  const uint64_t first = slot_.start.value();
  const uint64_t last = slot_.end.value() - 1;
  for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
    Map(first, level);
    Map(last, level);
  }
  EXPECT_THAT(Walk(slot_, Level::k4K, Level::k1G),
              ElementsAre("1:1100", "1:810ff", "2:1100", "2:81000", "3:1100",
                          "3:80000"));
}

TEST_F(SlotRmapCursorTest, AWalkOverNothingStopsNowAndThen) {
  SlotRmapCursor c(*rmaps_, slot_, Level::k4K, Level::k4K);
  uint64_t stops = 0;
  for (; c.Valid(); c.Next()) {
    EXPECT_TRUE(c.head().empty());
    ++stops;
  }
  // The walk skips most empty rmaps, but stops often enough that it can yield.
  EXPECT_GE(stops, slot_.pages() / (SlotRmapCursor::kEmptyRun + 1) - 1);
  EXPECT_LE(stops, slot_.pages() / SlotRmapCursor::kEmptyRun);
}

// Covers: SHD-18
TEST_F(SlotRmapCursorTest, AYieldIsBetweenRmapsAndFlushesBefore) {
  Map(0x2000, Level::k4K);
  Map(0x2001, Level::k4K);
  Map(0x2002, Level::k4K);
  std::vector<std::string> trace;
  FakeLock lock(tlb_, trace);
  YieldPoint<FakeLock> yield(lock);
  TlbFlushBatch batch(tlb_, FlushScope::kRange, FlushReason::kWriteProtect);
  const GfnRange range = GfnRange::Of(Gfn(0x2000), 3);
  for (SlotRmapCursor c(*rmaps_, range, Level::k4K, Level::k4K); c.Valid();
       c.Next()) {
    trace.push_back(Name(c));
    if (c.gfn() != Gfn(0x2001)) batch.Add(GfnRange::Of(c.gfn(), 1));
    EXPECT_TRUE(yield.MaybeYield(c, &batch, nullptr));
    EXPECT_FALSE(batch.pending());
    EXPECT_FALSE(yield.MaybeYield(c, &batch, nullptr)) << "not twice";
  }
  EXPECT_THAT(trace, ElementsAre("1:2000", "yield after 1 flushes", "1:2001",
                                 "yield after 1 flushes", "1:2002",
                                 "yield after 2 flushes"));
}

// Covers: SHD-18
TEST_F(SlotRmapCursorTest, WithoutFlushBeforeYieldItIsRemembered) {
  Map(0x2000, Level::k4K);
  Map(0x2001, Level::k4K);
  std::vector<std::string> trace;
  FakeLock lock(tlb_, trace);
  YieldPoint<FakeLock> yield(lock);
  TlbFlushBatch batch(tlb_, FlushScope::kRange, FlushReason::kWriteProtect);
  const GfnRange range = GfnRange::Of(Gfn(0x2000), 2);
  for (SlotRmapCursor c(*rmaps_, range, Level::k4K, Level::k4K); c.Valid();
       c.Next()) {
    trace.push_back(Name(c));
    batch.Add(GfnRange::Of(c.gfn(), 1));
    EXPECT_TRUE(yield.MaybeYield(c, nullptr, nullptr));
  }
  EXPECT_THAT(trace, ElementsAre("1:2000", "yield after 0 flushes", "1:2001",
                                 "yield after 0 flushes"));
  EXPECT_EQ(batch.range(), range) << "owed at the end";
  batch.Flush(nullptr);
}

// Another thread takes the lock during a yield, and adds and removes SPTEs. The
// walk goes on behind the gfn at which it yielded.
TEST_F(SlotRmapCursorTest, AWalkGoesOnBehindWhatChangedWhileItYielded) {
  Map(0x2000, Level::k4K);
  Map(0x2002, Level::k4K);
  SlotRmapCursor c(*rmaps_, slot_, Level::k4K, Level::k4K);
  while (c.Valid() && c.head().empty()) c.Next();
  ASSERT_EQ(c.gfn(), Gfn(0x2000));
  {
    MmuWriteLocked lock(mmu_lock_, LockOp::kZap);
    c.head().Remove(lock, sptes_[0], counters_);
  }
  Map(0x1f00, Level::k4K);  // the walk has passed it
  Map(0x2001, Level::k4K);
  std::vector<std::string> met;
  for (c.Next(); c.Valid(); c.Next()) {
    if (!c.head().empty()) met.push_back(Name(c));
  }
  EXPECT_THAT(met, ElementsAre("1:2001", "1:2002"));
}

using SlotRmapCursorDeathTest = SlotRmapCursorTest;

TEST_F(SlotRmapCursorDeathTest, ARangeBeyondTheSlotIsRefused) {
  EXPECT_DEATH(Walk({slot_.start, slot_.end + 1}, Level::k4K, Level::k1G),
               "Contains");
}

}  // namespace
}  // namespace mmu
