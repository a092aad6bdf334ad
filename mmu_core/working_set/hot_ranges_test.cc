#include "mmu_core/working_set/hot_ranges.h"

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/working_set/generation_age.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set.h"

namespace mmu {
namespace {

constexpr HeatOrder kHot = HeatOrder::kHottestFirst;
constexpr HeatOrder kCold = HeatOrder::kColdestFirst;
constexpr NeverYoungMemory kAll = NeverYoungMemory::kInclude;
constexpr NeverYoungMemory kYoung = NeverYoungMemory::kExclude;

GfnRange Range(uint64_t start, uint64_t end) { return {Gfn(start), Gfn(end)}; }

using Extents = std::vector<HeatExtent>;

// All extents, read in pieces of `limit`.
Extents All(const WorkingSet& set, HeatQuery query) {
  Extents all;
  do {
    const HeatList list = ListHotRanges(set.View(), query);
    EXPECT_LE(list.extents.size(), query.limit);
    all.insert(all.end(), list.extents.begin(), list.extents.end());
    query.from = list.next;
  } while (query.from.has_value());
  return all;
}

class HotRangesTest : public ::testing::Test {
 protected:
  // Slots with a hole between the second and the third. The second has one
  // page.
  void SetUp() override {
    const std::vector<TrackedSlot> slots = {{10, 1, Range(0, 1000)},
                                            {11, 1, Range(1000, 1001)},
                                            {12, 1, Range(1500, 2100)}};
    ASSERT_EQ(set_.SyncSlots(slots), absl::OkStatus());
  }

  void Scan(const std::vector<GfnRange>& young) {
    set_.Begin(0);
    for (const GfnRange range : young) set_.RecordAll(range);
    set_.End(0, {});
  }

  WorkingSet set_;
};

TEST_F(HotRangesTest, WithoutGenerationsAllMemoryIsCold) {
  for (const HeatOrder order : {kHot, kCold}) {
    for (const Level unit : kLeafLevels) {
      EXPECT_EQ(All(set_, {order, unit, kAll, 2, {}}),
                (Extents{{10, Range(0, 1000), kNeverYoung, 0},
                         {11, Range(1000, 1001), kNeverYoung, 0},
                         {12, Range(1500, 2100), kNeverYoung, 0}}));
    }
    EXPECT_EQ(All(set_, {order, Level::k4K, kYoung, 2, {}}), Extents());
  }
}

TEST_F(HotRangesTest, PagesAreListedInBothOrdersWithAnyLimit) {
  Scan({Range(990, 1600)});
  Scan({Range(999, 1000), Range(2090, 2100)});
  const Extents hot = {{10, Range(999, 1000), 0, 2},
                       {12, Range(2090, 2100), 0, 2},
                       {10, Range(990, 999), 1, 1},
                       {11, Range(1000, 1001), 1, 1},
                       {12, Range(1500, 1600), 1, 1}};
  const Extents never = {{10, Range(0, 990), kNeverYoung, 0},
                         {12, Range(1600, 2090), kNeverYoung, 0}};
  Extents hottest_first = hot;
  hottest_first.insert(hottest_first.end(), never.begin(), never.end());
  const Extents cold = {hot[2], hot[3], hot[4], hot[0], hot[1]};
  Extents coldest_first = never;
  coldest_first.insert(coldest_first.end(), cold.begin(), cold.end());
  for (size_t limit = 1; limit <= 9; ++limit) {
    EXPECT_EQ(All(set_, {kHot, Level::k4K, kAll, limit, {}}), hottest_first);
    EXPECT_EQ(All(set_, {kHot, Level::k4K, kYoung, limit, {}}), hot);
    EXPECT_EQ(All(set_, {kCold, Level::k4K, kAll, limit, {}}), coldest_first);
    EXPECT_EQ(All(set_, {kCold, Level::k4K, kYoung, limit, {}}), cold);
  }
}

TEST_F(HotRangesTest, UnitHasTheAgeOfItsYoungestPage) {
  Scan({Range(600, 601), Range(1500, 1501)});
  Scan({Range(700, 701), Range(2099, 2100)});
  EXPECT_EQ(All(set_, {kHot, Level::k2M, kAll, 100, {}}),
            (Extents{{10, Range(512, 1000), 0, 2},
                     {12, Range(2048, 2100), 0, 2},
                     {12, Range(1500, 1536), 1, 1},
                     {10, Range(0, 512), kNeverYoung, 0},
                     {11, Range(1000, 1001), kNeverYoung, 0},
                     {12, Range(1536, 2048), kNeverYoung, 0}}));
  EXPECT_EQ(
      All(set_, {kHot, Level::k1G, kYoung, 100, {}}),
      (Extents{{10, Range(0, 1000), 0, 2}, {12, Range(1500, 2100), 0, 2}}));
}

TEST_F(HotRangesTest, NextIsTheEndOfTheLastExtentAndNotSetAtTheEnd) {
  Scan({Range(3, 5), Range(7, 8)});
  HeatQuery query = {kHot, Level::k4K, kYoung, 1, {}};
  const HeatList first = ListHotRanges(set_.View(), query);
  EXPECT_EQ(first.extents, (Extents{{10, Range(3, 5), 0, 1}}));
  EXPECT_EQ(first.next, (HeatPosition{1, Gfn(5)}));
  query.from = first.next;
  const HeatList last = ListHotRanges(set_.View(), query);
  EXPECT_EQ(last.extents, (Extents{{10, Range(7, 8), 0, 1}}));
  EXPECT_EQ(last.next, absl::nullopt);
  query.limit = 2;
  query.from = absl::nullopt;
  EXPECT_EQ(ListHotRanges(set_.View(), query).next, absl::nullopt);
}

TEST_F(HotRangesTest, PositionStaysWhereItIsWhenGenerationsBegin) {
  Scan({Range(0, 10), Range(20, 30)});
  Scan({Range(40, 50), Range(60, 70)});
  for (const HeatOrder order : {kHot, kCold}) {
    HeatQuery query = {order, Level::k4K, kYoung, 1, {}};
    query.from = ListHotRanges(set_.View(), query).next;
    Scan({});
    query.limit = 100;
    const HeatList rest = ListHotRanges(set_.View(), query);
    const auto age = static_cast<GenerationAge>(set_.View().newest);
    const auto younger = static_cast<GenerationAge>(age - 2);
    const auto older = static_cast<GenerationAge>(age - 1);
    if (order == kHot) {
      EXPECT_EQ(rest.extents, (Extents{{10, Range(60, 70), younger, 2},
                                       {10, Range(0, 10), older, 1},
                                       {10, Range(20, 30), older, 1}}));
    } else {
      EXPECT_EQ(rest.extents, (Extents{{10, Range(20, 30), older, 1},
                                       {10, Range(40, 50), younger, 2},
                                       {10, Range(60, 70), younger, 2}}));
    }
  }
}

// Several generations came to have the greatest age since the position was
// returned.
TEST_F(HotRangesTest, NothingIsMissedPastTheGreatestAge) {
  Scan({Range(50, 60), Range(80, 90)});
  Scan({Range(0, 10), Range(70, 75)});
  HeatQuery cold = {kCold, Level::k4K, kYoung, 1, {}};
  HeatQuery hot = {kHot, Level::k4K, kYoung, 3, {}};
  cold.from = ListHotRanges(set_.View(), cold).next;
  hot.from = ListHotRanges(set_.View(), hot).next;
  EXPECT_EQ(cold.from, (HeatPosition{1, Gfn(60)}));
  EXPECT_EQ(hot.from, (HeatPosition{1, Gfn(60)}));
  for (int i = 0; i < 150; ++i) Scan({});
  cold.limit = 100;
  EXPECT_EQ(ListHotRanges(set_.View(), cold).extents,
            (Extents{{10, Range(0, 10), 127, 25},
                     {10, Range(50, 60), 127, 25},
                     {10, Range(70, 75), 127, 25},
                     {10, Range(80, 90), 127, 25}}));
  EXPECT_EQ(
      ListHotRanges(set_.View(), hot).extents,
      (Extents{{10, Range(70, 75), 127, 25}, {10, Range(80, 90), 127, 25}}));
}

TEST_F(HotRangesTest, HeatOfBlocksIsThatOfTheirYoungestPages) {
  Scan({Range(600, 601), Range(1500, 1501)});
  Scan({Range(700, 701), Range(1000, 1001)});
  using Ages = std::vector<GenerationAge>;
  const GenerationView view = set_.View();
  EXPECT_EQ(HeatOfBlocks(view, Range(0, 2560), Level::k2M),
            (Ages{kNeverYoung, 0, 1, kNeverYoung, kNeverYoung}));
  EXPECT_EQ(HeatOfBlocks(view, Range(100, 701), Level::k2M),
            (Ages{kNeverYoung, 0}));
  EXPECT_EQ(HeatOfBlocks(view, Range(100, 700), Level::k2M),
            (Ages{kNeverYoung, 1}));
  EXPECT_EQ(HeatOfBlocks(view, Range(1001, 1501), Level::k2M),
            (Ages{kNeverYoung, 1}));
  EXPECT_EQ(HeatOfBlocks(view, Range(999, 1002), Level::k4K),
            (Ages{kNeverYoung, 0, kNeverYoung}));
  EXPECT_EQ(HeatOfBlocks(view, Range(0, 1), Level::k1G), Ages{kNeverYoung});
  EXPECT_EQ(HeatOfBlocks(view, Range(5, 5), Level::k2M), Ages());
}

}  // namespace
}  // namespace mmu
