#include "mmu_core/working_set/slot_maps.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"

namespace mmu {
namespace {

TrackedSlot Slot(uint32_t id, uint64_t uid, uint64_t start, uint64_t pages) {
  return {id, uid, GfnRange::Of(Gfn(start), pages)};
}

SlotMaps Maps(const std::vector<TrackedSlot>& slots,
              const SlotMaps& before = {}, uint64_t next_generation = 1) {
  return MapsOfSlots(before, slots, next_generation).value();
}

TEST(SlotMapsTest, MapsAreInTheOrderOfTheirGfns) {
  const SlotMaps maps = Maps({Slot(1, 1, 100, 10), Slot(2, 1, 0, 100)});
  ASSERT_EQ(maps.size(), 2u);
  EXPECT_EQ(maps[0].slot.id, 2u);
  EXPECT_EQ(maps[0].map->npages(), 100u);
  EXPECT_EQ(maps[1].slot.id, 1u);
  EXPECT_EQ(maps[1].map->npages(), 10u);
}

TEST(SlotMapsTest, SlotKeepsItsMapAlsoWhenItMoves) {
  const SlotMaps before = Maps({Slot(1, 1, 0, 10), Slot(2, 1, 10, 10)});
  const SlotMaps after = Maps({Slot(1, 1, 0, 10), Slot(2, 1, 700, 10)}, before);
  EXPECT_EQ(after[0].map, before[0].map);
  EXPECT_EQ(after[1].map, before[1].map);
  EXPECT_EQ(after[1].slot.range, GfnRange::Of(Gfn(700), 10));
}

TEST(SlotMapsTest, AMapKnowsItsFirstGeneration) {
  const SlotMaps before = Maps({Slot(1, 1, 0, 10)}, {}, 3);
  EXPECT_EQ(before[0].first_generation, 3u);
  const SlotMaps after =
      Maps({Slot(1, 1, 0, 10), Slot(2, 1, 710, 10)}, before, 5);
  EXPECT_EQ(after[0].first_generation, 3u);
  EXPECT_EQ(after[1].first_generation, 5u);
  const SlotMaps moved = Maps({Slot(1, 1, 800, 10)}, after, 7);
  EXPECT_EQ(moved[0].first_generation, 7u) << "a move unmaps its pages";
}

TEST(SlotMapsTest, AnotherSlotGetsAMapOfItsOwn) {
  const SlotMaps before = Maps({Slot(1, 1, 0, 10)});
  for (const TrackedSlot& slot :
       {Slot(2, 1, 0, 10), Slot(1, 2, 0, 10), Slot(1, 1, 0, 11)}) {
    const SlotMaps after = Maps({slot}, before);
    ASSERT_EQ(after.size(), 1u);
    EXPECT_NE(after[0].map, before[0].map);
    EXPECT_EQ(after[0].map->npages(), slot.range.pages());
  }
}

TEST(SlotMapsTest, PartsOfARangeInSeveralSlotsWithHoles) {
  const SlotMaps maps =
      Maps({Slot(1, 1, 10, 10), Slot(2, 1, 20, 1), Slot(3, 1, 30, 10)});
  using Parts = std::vector<std::pair<uint32_t, GfnRange>>;
  const auto parts = [&](uint64_t start, uint64_t end) {
    Parts found;
    ForEachSlotIn(maps, {Gfn(start), Gfn(end)},
                  [&](const SlotMap& slot, GfnRange part) {
                    found.emplace_back(slot.slot.id, part);
                  });
    return found;
  };
  EXPECT_EQ(parts(0, 10), Parts());
  EXPECT_EQ(parts(21, 30), Parts());
  EXPECT_EQ(parts(40, 50), Parts());
  EXPECT_EQ(parts(15, 15), Parts());
  EXPECT_EQ(parts(19, 20), (Parts{{1, {Gfn(19), Gfn(20)}}}));
  EXPECT_EQ(parts(0, 100), (Parts{{1, {Gfn(10), Gfn(20)}},
                                  {2, {Gfn(20), Gfn(21)}},
                                  {3, {Gfn(30), Gfn(40)}}}));
  EXPECT_EQ(parts(20, 31),
            (Parts{{2, {Gfn(20), Gfn(21)}}, {3, {Gfn(30), Gfn(31)}}}));
}

TEST(SlotMapsDeathTest, EmptyAndOverlappingSlotsAreABug) {
  EXPECT_DEATH(Maps({Slot(1, 1, 0, 0)}), "check failed");
  EXPECT_DEATH(Maps({Slot(1, 1, 0, 10), Slot(2, 1, 9, 1)}), "check failed");
}

}  // namespace
}  // namespace mmu
