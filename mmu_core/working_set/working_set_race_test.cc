// Readers beside a thread that scans and one that changes slots.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/testing/rounds.h"
#include "mmu_core/working_set/generation_age.h"
#include "mmu_core/working_set/hot_ranges.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set.h"
#include "mmu_core/working_set/working_set_snapshot.h"

namespace mmu {
namespace {

// Pages below kHotEnd are young in each generation. Those from there to
// kColdEnd were young in the first one only; the others never were.
constexpr Gfn kHotEnd(1000);
constexpr Gfn kColdEnd(1500);
constexpr Gfn kEnd(9000);
constexpr GfnRange kSlot{Gfn(0), kEnd};
// The scanner gets this far ahead of a reader, which is less than the 63
// generations for which a view may be used.
constexpr uint64_t kAhead = 40;
// A slot that comes and goes.
constexpr GfnRange kGuest{kEnd, kEnd + 5000};

void Scan(WorkingSet& set, GfnRange young, int64_t& now) {
  set.Begin(++now);
  const uint64_t pages = young.pages();
  const std::vector<uint64_t> bits(pages / 64 + 1, ~uint64_t{0});
  set.Record(young, bits, young.start);
  set.RecordAll(kGuest);
  set.End(++now, {pages, pages, 0});
}

// A page is in one bin at any time: in that of its former generation, or in the
// newest one.
void CheckSnapshot(const WorkingSet& set) {
  const std::vector<int64_t> windows = {1};
  const WorkingSetSnapshot snapshot =
      set.TakeSnapshot(int64_t{1} << 40, windows);
  const uint64_t newest = snapshot.generations[0].sequence;
  uint64_t pages = snapshot.never_young_pages;
  uint64_t recent = 0;
  for (const WorkingSetBin& bin : snapshot.bins) {
    pages += bin.pages;
    if (bin.sequence + 1 >= newest) recent += bin.pages;
  }
  ASSERT_TRUE(pages == kSlot.pages() ||
              pages == kSlot.pages() + kGuest.pages());
  ASSERT_GE(recent, kHotEnd.value());
  ASSERT_GE(snapshot.never_young_pages, kEnd - kColdEnd);
}

void CheckLists(const WorkingSet& set) {
  const GenerationView view = set.View();
  const HeatList list = ListHotRanges(view, {HeatOrder::kColdestFirst,
                                             Level::k4K,
                                             NeverYoungMemory::kInclude,
                                             1000,
                                             {}});
  uint64_t never = 0;
  for (const HeatExtent& extent : list.extents) {
    const GfnRange part = extent.range.Intersect(kSlot);
    if (extent.age == kNeverYoung) never += part.pages();
    if (part.Overlaps({Gfn(0), kHotEnd})) {
      ASSERT_LE(extent.age, 1);
    }
  }
  ASSERT_EQ(never, kEnd - kColdEnd);
  const std::vector<GenerationAge> heat =
      HeatOfBlocks(view, {Gfn(0), kEnd}, Level::k2M);
  ASSERT_LE(heat[0], 1);
  ASSERT_LE(heat[1], 1);
  // Clamp may have renewed the bytes for a newer generation.
  const uint64_t age = std::min<uint64_t>(view.newest - 1, 127);
  ASSERT_LE(heat[2], age);
  ASSERT_GE(heat[2], std::min<uint64_t>(age, 127 - kAhead));
  ASSERT_EQ(heat[3], kNeverYoung);
}

TEST(WorkingSetRaceTest, ReadersRunBesideScansAndChangesOfSlots) {
  WorkingSet set;
  const std::vector<TrackedSlot> one = {{1, 1, kSlot}};
  ASSERT_EQ(set.SyncSlots(one), absl::OkStatus());
  int64_t now = 0;
  Scan(set, {Gfn(0), kColdEnd}, now);
  std::atomic<bool> done = false;
  std::atomic<uint64_t> allowed = 1;  // the last generation that may begin
  std::thread scanner([&] {
    for (uint64_t newest = 1; !done.load();) {
      if (newest == allowed.load()) {
        std::this_thread::yield();
        continue;
      }
      Scan(set, {Gfn(0), kHotEnd}, now);
      ++newest;
    }
  });
  std::thread slots([&] {
    for (uint64_t uid = 1; !done.load(); ++uid) {
      const std::vector<TrackedSlot> two = {{1, 1, kSlot}, {2, uid, kGuest}};
      EXPECT_EQ(set.SyncSlots(uid % 2 == 0 ? one : two), absl::OkStatus());
    }
  });
  testing::Rounds rounds(3000);
  while (rounds.Next() && !::testing::Test::HasFatalFailure()) {
    allowed = set.View().newest + kAhead;
    CheckSnapshot(set);
    CheckLists(set);
  }
  done = true;
  scanner.join();
  slots.join();
  EXPECT_GT(set.View().newest, 1u);
}

}  // namespace
}  // namespace mmu
