#include "mmu_core/working_set/working_set.h"

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/testing/failing_allocations.h"
#include "mmu_core/working_set/generation_age.h"
#include "mmu_core/working_set/generation_map.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set_snapshot.h"

namespace mmu {
namespace {

GfnRange Range(uint64_t start, uint64_t end) { return {Gfn(start), Gfn(end)}; }

void Sync(WorkingSet& set, const std::vector<TrackedSlot>& slots) {
  ASSERT_EQ(set.SyncSlots(slots), absl::OkStatus());
}

// A generation in which `range` is young.
void Scan(WorkingSet& set, int64_t begin, int64_t end, GfnRange range) {
  set.Begin(begin);
  set.RecordAll(range);
  set.End(end, {range.pages(), 100, 0});
}

std::vector<uint64_t> PagesOfBins(const WorkingSet& set) {
  std::vector<uint64_t> pages;
  for (const WorkingSetBin& bin : set.TakeSnapshot(0, {}).bins) {
    pages.push_back(bin.pages);
  }
  return pages;
}

TEST(WorkingSetTest, PageIsInTheBinOfTheLastGenerationThatFoundItYoung) {
  WorkingSet set;
  Sync(set, {{1, 1, Range(0, 100)}});
  Scan(set, 10, 20, Range(0, 50));
  Scan(set, 30, 40, Range(40, 60));
  const std::vector<int64_t> windows = {20, 21};
  const WorkingSetSnapshot snapshot = set.TakeSnapshot(100, windows);
  EXPECT_EQ(snapshot.generations,
            (std::vector<Generation>{{2, 30, 40, {20, 100, 0}},
                                     {1, 10, 20, {50, 100, 0}}}));
  EXPECT_EQ(snapshot.bins, (std::vector<WorkingSetBin>{
                               {2, 20, 60, 90}, {1, 40, 80, absl::nullopt}}));
  EXPECT_EQ(snapshot.windows,
            (std::vector<WorkingSetWindow>{{20, 20, true}, {21, 60, false}}));
  EXPECT_EQ(snapshot.never_young_pages, 40u);
  EXPECT_EQ(snapshot.mapped_never_young_pages, 40u);
  EXPECT_EQ(snapshot.staleness_nanos, 60);
}

TEST(WorkingSetTest, RecordSpansSlotsAndSkipsHoles) {
  WorkingSet set;
  Sync(set,
       {{1, 1, Range(10, 20)}, {2, 1, Range(20, 21)}, {3, 1, Range(130, 140)}});
  EXPECT_EQ(set.Begin(0), 1u);
  // Bit 0 is gfn 5: the pages 10, 19, 20, 21 (in no slot), 130 and 139.
  std::vector<uint64_t> young(3);
  for (const uint64_t gfn : {5, 10, 19, 20, 21, 130, 139, 140}) {
    young[(gfn - 5) / 64] |= uint64_t{1} << ((gfn - 5) % 64);
  }
  set.Record(Range(5, 150), young, Gfn(5));
  set.Record(Range(7, 7), {}, Gfn(5));
  set.End(0, {});
  EXPECT_EQ(PagesOfBins(set), std::vector<uint64_t>{5});
  const GenerationView view = set.View();
  EXPECT_EQ(view.newest, 1u);
  const SlotMaps& slots = *view.slots;
  EXPECT_EQ(slots[0].map->AgeOf(0, 1), 0);
  EXPECT_EQ(slots[0].map->AgeOf(9, 1), 0);
  EXPECT_EQ(slots[1].map->AgeOf(0, 1), 0);
  EXPECT_EQ(slots[2].map->AgeOf(0, 1), 0);
  EXPECT_EQ(slots[2].map->AgeOf(9, 1), 0);
}

TEST(WorkingSetTest, SlotsKeepTheirPagesOrLoseThem) {
  WorkingSet set;
  Sync(set, {{1, 1, Range(0, 10)}, {2, 1, Range(10, 30)}});
  Scan(set, 0, 0, Range(0, 30));
  // Slot 1 is as before, slot 2 moves.
  Sync(set, {{1, 1, Range(0, 10)}, {2, 1, Range(50, 70)}});
  EXPECT_EQ(PagesOfBins(set), std::vector<uint64_t>{30});
  Scan(set, 0, 0, Range(50, 51));
  EXPECT_EQ(PagesOfBins(set), (std::vector<uint64_t>{1, 29}));
  // Slot 1 is deleted, slot 2 is created again.
  Sync(set, {{2, 2, Range(50, 70)}});
  EXPECT_EQ(PagesOfBins(set), (std::vector<uint64_t>{0, 0}));
  EXPECT_EQ(set.TakeSnapshot(0, {}).never_young_pages, 20u);
}

TEST(WorkingSetTest, ViewOutlivesItsSlots) {
  WorkingSet set;
  Sync(set, {{1, 1, Range(0, 10)}});
  Scan(set, 0, 0, Range(3, 4));
  const GenerationView view = set.View();
  Sync(set, {});
  Scan(set, 0, 0, Range(0, 10));
  EXPECT_EQ((*view.slots)[0].map->AgeOf(3, view.newest), 0);
  EXPECT_EQ((*view.slots)[0].map->AgeOf(4, view.newest), kNeverYoung);
}

TEST(WorkingSetTest, OldestBinHasThePagesOfAllOlderGenerations) {
  WorkingSet set;
  Sync(set, {{1, 1, Range(0, 1000)}});
  for (uint64_t i = 0; i < 200; ++i) {
    const auto begin = static_cast<int64_t>(10 * i);
    Scan(set, begin, begin + 5, Range(i, i + 1));
  }
  const std::vector<int64_t> windows = {1270, 1271};
  const WorkingSetSnapshot snapshot = set.TakeSnapshot(2000, windows);
  ASSERT_EQ(snapshot.bins.size(), 128u);
  EXPECT_EQ(snapshot.bins[126], (WorkingSetBin{74, 1, 2000 - 735, 2000 - 720}));
  EXPECT_EQ(snapshot.bins[127],
            (WorkingSetBin{73, 73, 2000 - 725, absl::nullopt}));
  EXPECT_EQ(snapshot.windows, (std::vector<WorkingSetWindow>{
                                  {1270, 127, true}, {1271, 200, false}}));
}

TEST(WorkingSetTest, SyncSlotsChangesAllOrNothingIfMemoryIsShort) {
  const std::vector<TrackedSlot> before = {{1, 1, Range(0, 10)}};
  const std::vector<TrackedSlot> after = {{2, 1, Range(0, 9000)},
                                          {1, 1, Range(9000, 9010)}};
  uint64_t failures = 0;
  for (uint64_t n = 1;; ++n) {
    WorkingSet set;
    Sync(set, before);
    Scan(set, 0, 0, Range(0, 4));
    const testing::Attempt attempt =
        testing::FailOneAllocation(n, [&] { return set.SyncSlots(after); });
    if (!attempt.failed) {
      EXPECT_EQ(attempt.status, absl::OkStatus());
      EXPECT_EQ(set.View().slots->size(), 2u);
      EXPECT_EQ(PagesOfBins(set), std::vector<uint64_t>{4});
      break;
    }
    ++failures;
    EXPECT_EQ(attempt.status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(set.View().slots->size(), 1u);
    EXPECT_EQ(PagesOfBins(set), std::vector<uint64_t>{4});
  }
  EXPECT_GE(failures, 4u);
}

TEST(WorkingSetDeathTest, OneGenerationIsOpenAtATime) {
  WorkingSet set;
  EXPECT_DEATH(set.End(0, {}), "check failed");
  EXPECT_DEATH(set.RecordAll(Range(0, 1)), "check failed");
  set.Begin(5);
  EXPECT_DEATH(set.Begin(6), "check failed");
  EXPECT_DEATH(set.End(4, {}), "check failed");
  set.End(7, {});
  EXPECT_DEATH(set.Record(Range(0, 1), {}, Gfn(0)), "check failed");
  EXPECT_DEATH(set.End(8, {}), "check failed");
  EXPECT_DEATH(set.Begin(6), "check failed");
}

}  // namespace
}  // namespace mmu
