#include "mmu_core/working_set/working_set_snapshot.h"

#include <cstdint>
#include <vector>

#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/working_set/generation_age.h"

namespace mmu {
namespace {

// Three generations: [100, 110], [200, 220] and [300, 330].
const std::vector<Generation> kThree = {{3, 300, 330, {7, 50, 1}},
                                        {2, 200, 220, {8, 60, 2}},
                                        {1, 100, 110, {9, 70, 3}}};

AgeHistogram Pages(uint64_t age0, uint64_t age1, uint64_t age2,
                   uint64_t never) {
  AgeHistogram pages{};
  pages[0] = age0;
  pages[1] = age1;
  pages[2] = age2;
  pages[kNeverYoung] = never;
  return pages;
}

TEST(WorkingSetSnapshotTest, NothingIsKnownBeforeTheFirstGeneration) {
  const std::vector<int64_t> windows = {10};
  const WorkingSetSnapshot snapshot =
      MakeWorkingSetSnapshot({}, Pages(0, 0, 0, 40), 1000, windows);
  EXPECT_TRUE(snapshot.bins.empty());
  EXPECT_EQ(snapshot.windows, (std::vector<WorkingSetWindow>{{10, 0, false}}));
  EXPECT_EQ(snapshot.never_young_pages, 40u);
  EXPECT_EQ(snapshot.mapped_never_young_pages, 0u);
  EXPECT_EQ(snapshot.staleness_nanos, absl::nullopt);
}

TEST(WorkingSetSnapshotTest, BinHasTheTimesBetweenWhichItsPagesWereAccessed) {
  const WorkingSetSnapshot snapshot =
      MakeWorkingSetSnapshot(kThree, Pages(7, 5, 3, 85), 400, {});
  EXPECT_EQ(snapshot.generations, kThree);
  EXPECT_EQ(snapshot.bins,
            (std::vector<WorkingSetBin>{{3, 7, 400 - 330, 400 - 200},
                                        {2, 5, 400 - 220, 400 - 100},
                                        {1, 3, 400 - 110, absl::nullopt}}));
  EXPECT_EQ(snapshot.bins[0].bytes(), 7u * 4096);
  EXPECT_EQ(snapshot.never_young_pages, 85u);
  EXPECT_EQ(snapshot.mapped_never_young_pages, 50u - 15);
  EXPECT_EQ(snapshot.staleness_nanos, 70);
}

TEST(WorkingSetSnapshotTest, OpenGenerationHasPagesThatWereAccessedJustNow) {
  std::vector<Generation> generations = kThree;
  generations[0].ended_at_nanos = absl::nullopt;
  generations[0].totals = {};
  const std::vector<int64_t> windows = {0, 1};
  const WorkingSetSnapshot snapshot =
      MakeWorkingSetSnapshot(generations, Pages(7, 5, 60, 0), 400, windows);
  EXPECT_EQ(snapshot.bins[0], (WorkingSetBin{3, 7, 0, 200}));
  EXPECT_EQ(snapshot.staleness_nanos, 400 - 220);
  EXPECT_EQ(snapshot.mapped_never_young_pages, 0u);
  EXPECT_EQ(snapshot.windows,
            (std::vector<WorkingSetWindow>{{0, 7, true}, {1, 12, true}}));
}

TEST(WorkingSetSnapshotTest, NothingIsCompleteBeforeAGenerationHasEnded) {
  const std::vector<int64_t> windows = {5};
  const WorkingSetSnapshot snapshot = MakeWorkingSetSnapshot(
      {{1, 100, absl::nullopt, {}}}, Pages(7, 0, 0, 1), 400, windows);
  EXPECT_EQ(snapshot.bins,
            (std::vector<WorkingSetBin>{{1, 7, 0, absl::nullopt}}));
  EXPECT_EQ(snapshot.windows, (std::vector<WorkingSetWindow>{{5, 7, false}}));
  EXPECT_EQ(snapshot.staleness_nanos, absl::nullopt);
}

TEST(WorkingSetSnapshotTest, WindowHasTheGenerationsThatEndedWithinIt) {
  // The window ends at 330, the end of generation 3.
  const std::vector<int64_t> windows = {0, 1, 110, 111, 220, 221, 9999};
  const WorkingSetSnapshot snapshot =
      MakeWorkingSetSnapshot(kThree, Pages(7, 5, 3, 0), 400, windows);
  EXPECT_EQ(snapshot.windows,
            (std::vector<WorkingSetWindow>{{0, 0, true},
                                           {1, 7, true},
                                           {110, 7, true},
                                           {111, 12, true},
                                           {220, 12, true},
                                           {221, 15, false},
                                           {9999, 15, false}}));
  EXPECT_EQ(snapshot.windows[1].bytes(), 7u * 4096);
}

TEST(WorkingSetSnapshotTest, ClockOfTheReaderMayBeEarlier) {
  const WorkingSetSnapshot snapshot =
      MakeWorkingSetSnapshot(kThree, Pages(7, 5, 3, 0), 325, {});
  EXPECT_EQ(snapshot.staleness_nanos, 0);
  EXPECT_EQ(snapshot.bins[0], (WorkingSetBin{3, 7, 0, 125}));
}

}  // namespace
}  // namespace mmu
