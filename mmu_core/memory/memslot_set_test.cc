#include "mmu_core/memory/memslot_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/testing/failing_allocations.h"

namespace mmu {
namespace {

MemslotSet::SlotPtr Slot(uint32_t id, uint64_t gfn, uint64_t npages,
                         uint64_t hva_page) {
  auto slot = std::make_shared<Memslot>();
  slot->id = id;
  slot->base_gfn = Gfn(gfn);
  slot->npages = npages;
  slot->hva = Hva(hva_page << kPageShift);
  return slot;
}

// Slots 0 and 2 are aliases of overlapping host memory.
MemslotSet Example() {
  return MemslotSet(6, {Slot(2, 300, 100, 1050), Slot(0, 100, 100, 1000),
                        Slot(7, 200, 10, 5000)});
}

using Hit = std::pair<uint32_t, GfnRange>;

std::vector<Hit> HitsOf(const MemslotSet& set, uint64_t start, uint64_t end) {
  std::vector<Hit> hits;
  set.ForEachInHvaRange(Hva(start), Hva(end),
                        [&](const Memslot& slot, GfnRange gfns) {
                          hits.emplace_back(slot.id, gfns);
                        });
  return hits;
}

TEST(MemslotSetTest, FindsTheSlotOfAGfn) {
  const MemslotSet set = Example();
  EXPECT_EQ(set.FindByGfn(Gfn(99)), nullptr);
  EXPECT_EQ(set.FindByGfn(Gfn(100))->id, uint32_t{0});
  EXPECT_EQ(set.FindByGfn(Gfn(199))->id, uint32_t{0});
  EXPECT_EQ(set.FindByGfn(Gfn(200))->id, uint32_t{7});
  EXPECT_EQ(set.FindByGfn(Gfn(210)), nullptr);
  EXPECT_EQ(set.FindByGfn(Gfn(399))->id, uint32_t{2});
  EXPECT_EQ(set.FindByGfn(Gfn(400)), nullptr);
  EXPECT_EQ(set.FindByGfn(Gfn(~uint64_t{0})), nullptr);
}

TEST(MemslotSetTest, FindsTheSlotOfAnId) {
  const MemslotSet set = Example();
  EXPECT_EQ(set.FindById(7)->base_gfn, Gfn(200));
  EXPECT_EQ(set.FindById(0)->base_gfn, Gfn(100));
  EXPECT_EQ(set.FindById(1), nullptr);
  EXPECT_EQ(set.FindById(8), nullptr);
}

TEST(MemslotSetTest, SlotsAreInTheOrderOfTheirGfns) {
  std::vector<uint32_t> ids;
  const MemslotSet set = Example();
  for (const Memslot* slot : set.slots()) ids.push_back(slot->id);
  EXPECT_EQ(ids, (std::vector<uint32_t>{0, 7, 2}));
}

TEST(MemslotSetTest, SlotsInARangeOfGfnsShareAtLeastAPage) {
  const MemslotSet set = Example();
  EXPECT_EQ(set.SlotsIn(GfnRange{Gfn(0), Gfn(100)}).size(), size_t{0});
  EXPECT_EQ(set.SlotsIn(GfnRange{Gfn(0), Gfn(101)}).size(), size_t{1});
  EXPECT_EQ(set.SlotsIn(GfnRange{Gfn(199), Gfn(201)}).size(), size_t{2});
  EXPECT_EQ(set.SlotsIn(GfnRange{Gfn(210), Gfn(300)}).size(), size_t{0});
  EXPECT_EQ(set.SlotsIn(GfnRange{Gfn(0), Gfn(1000)}).size(), size_t{3});
  EXPECT_EQ(set.SlotsIn(GfnRange{Gfn(150), Gfn(150)}).size(), size_t{0});
}

TEST(MemslotSetTest, HvaRangeFindsAllAliases) {
  const MemslotSet set = Example();
  EXPECT_EQ(
      HitsOf(set, 1040 * 4096, 1060 * 4096),
      (std::vector<Hit>{{0, {Gfn(140), Gfn(160)}}, {2, {Gfn(300), Gfn(310)}}}));
  // Beyond the end of slot 0.
  EXPECT_EQ(HitsOf(set, 1100 * 4096, 1101 * 4096),
            (std::vector<Hit>{{2, {Gfn(350), Gfn(351)}}}));
  EXPECT_EQ(HitsOf(set, 1150 * 4096, 5000 * 4096), (std::vector<Hit>{}));
  EXPECT_EQ(HitsOf(set, 0, 1000 * 4096), (std::vector<Hit>{}));
}

TEST(MemslotSetTest, HvaRangeCoversEveryPageItTouches) {
  const MemslotSet set = Example();
  EXPECT_EQ(HitsOf(set, 5001 * 4096 + 4095, 5002 * 4096 + 1),
            (std::vector<Hit>{{7, {Gfn(201), Gfn(203)}}}));
  EXPECT_EQ(HitsOf(set, 5001 * 4096, 5001 * 4096), (std::vector<Hit>{}));
}

TEST(MemslotSetTest, LongSlotIsFoundBehindShortOnes) {
  // One slot with a low hva and a high end, and many short slots within it.
  std::vector<MemslotSet::SlotPtr> slots = {Slot(0, 0, 1000, 0)};
  for (uint32_t i = 1; i < 10; ++i) {
    slots.push_back(Slot(i, 1000 + i * 10, 10, i * 10));
  }
  const MemslotSet set(0, slots);
  EXPECT_EQ(HitsOf(set, 900 * 4096, 901 * 4096),
            (std::vector<Hit>{{0, {Gfn(900), Gfn(901)}}}));
}

TEST(MemslotSetTest, EmptySetFindsNothing) {
  const MemslotSet set(1, {});
  EXPECT_EQ(set.FindByGfn(Gfn(0)), nullptr);
  EXPECT_EQ(set.FindById(0), nullptr);
  EXPECT_TRUE(HitsOf(set, 0, ~uint64_t{0}).empty());
  EXPECT_EQ(set.generation(), uint64_t{1});
}

TEST(MemslotSetDeathTest, OverlappingSlotsAreABug) {
  EXPECT_DEATH(MemslotSet(0, {Slot(0, 0, 10, 0), Slot(1, 9, 10, 100)}),
               "check failed");
}

std::vector<uint32_t> IdsOf(const MemslotSet& set) {
  std::vector<uint32_t> ids;
  for (const Memslot* slot : set.slots()) ids.push_back(slot->id);
  return ids;
}

// Each set that is derived from its predecessor equals a set that is built from
// scratch.
TEST(MemslotSetTest, ASetThatFollowsIsTheSameAsOneBuiltAnew) {
  auto set =
      std::make_unique<MemslotSet>(0, std::vector<MemslotSet::SlotPtr>());
  uint64_t seed = 1;
  const auto below = [&seed](uint64_t end) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % end;
  };
  for (uint64_t step = 1; step < 2000; ++step) {
    // Each id has an area of its own, with eight places side by side.
    const uint32_t id = static_cast<uint32_t>(below(16));
    MemslotSet::SlotPtr slot;
    if (below(3) != 0) {
      slot = Slot(id, 100 * id + 10 * below(8), 1 + below(10), below(40));
    }
    set = std::make_unique<MemslotSet>(*set, step, id, slot);
    EXPECT_EQ(set->generation(), step);
    EXPECT_EQ(set->FindById(id), slot.get());
    const MemslotSet anew(step, set->owned_slots());
    ASSERT_EQ(IdsOf(*set), IdsOf(anew));
    for (const Memslot* each : set->slots()) {
      ASSERT_EQ(set->FindById(each->id), each);
      ASSERT_EQ(set->FindByGfn(each->base_gfn), each);
    }
    for (uint64_t page = 0; page < 50; ++page) {
      std::vector<Hit> hits = HitsOf(*set, page << 12, (page + 1) << 12);
      std::vector<Hit> expected = HitsOf(anew, page << 12, (page + 1) << 12);
      // Slots with the same hva have no defined order.
      const auto by_id = [](const Hit& a, const Hit& b) {
        return a.first < b.first;
      };
      std::sort(hits.begin(), hits.end(), by_id);
      std::sort(expected.begin(), expected.end(), by_id);
      ASSERT_EQ(hits, expected);
    }
  }
}

// Like the test above, with more slots than one chunk of an index holds, and
// with an older set that lives on beside its successors.
TEST(MemslotSetTest, ManySlotsAreFoundInTheSetsThatHaveThem) {
  constexpr uint32_t kIds = 700;
  auto set =
      std::make_unique<MemslotSet>(0, std::vector<MemslotSet::SlotPtr>());
  std::map<uint32_t, MemslotSet::SlotPtr> model;
  std::mt19937 random(7);
  const auto check = [](const MemslotSet& checked,
                        const std::map<uint32_t, MemslotSet::SlotPtr>& slots) {
    ASSERT_EQ(checked.slots().size(), slots.size());
    std::vector<uint32_t> ids;
    for (const Memslot* slot : checked.slots_by_id()) ids.push_back(slot->id);
    std::vector<uint32_t> expected;
    for (const auto& [id, slot] : slots) {
      expected.push_back(id);
      ASSERT_EQ(checked.FindById(id), slot.get());
      ASSERT_EQ(checked.FindOwnedById(id), slot);
      ASSERT_EQ(checked.FindByGfn(slot->base_gfn + (slot->npages - 1)),
                slot.get());
      const GfnRange range = slot->range();
      ASSERT_EQ(*checked.SlotsIn(range).begin(), slot.get());
      bool hit = false;
      checked.ForEachInHvaRange(
          slot->hva, slot->hva + 1,
          [&, &slot = *slot](const Memslot& found, GfnRange gfns) {
            hit |= &found == &slot && gfns.Contains(slot.base_gfn);
          });
      ASSERT_TRUE(hit);
    }
    ASSERT_EQ(ids, expected);
  };
  std::unique_ptr<MemslotSet> kept;
  std::map<uint32_t, MemslotSet::SlotPtr> kept_model;
  for (uint64_t step = 1; step <= 6000; ++step) {
    // The set grows, shrinks to a few slots and grows again.
    const uint32_t id = random() % kIds;
    const bool grow = step < 2000 || step > 4000;
    MemslotSet::SlotPtr slot;
    if (random() % 10 < (grow ? 9 : 1)) {
      slot = Slot(id, 100 * uint64_t{id} + random() % 50, 1 + random() % 50,
                  random() % 2000);
      model[id] = slot;
    } else {
      model.erase(id);
    }
    set = std::make_unique<MemslotSet>(*set, step, id, slot);
    if (step % 500 == 0) check(*set, model);
    if (HasFatalFailure()) return;
    if (step == 2500) {
      kept = std::make_unique<MemslotSet>(*set, step, kIds, nullptr);
      kept_model = model;
    }
  }
  check(*kept, kept_model);
}

// The allocations of one change in a set of many slots.
testing::AllocationCount CostOfOne(uint32_t slots) {
  std::vector<MemslotSet::SlotPtr> all;
  for (uint32_t id = 0; id < slots; ++id) {
    all.push_back(Slot(id, 10 * uint64_t{id}, 10, 10 * uint64_t{id}));
  }
  const MemslotSet set(0, all);
  const MemslotSet::SlotPtr other = Slot(slots / 2, 5 * slots, 10, 0);
  const testing::AllocationCount before = testing::AllocationsOfThread();
  const MemslotSet next(set, 1, slots / 2, other);
  const testing::AllocationCount after = testing::AllocationsOfThread();
  EXPECT_EQ(next.FindById(slots / 2), other.get());
  return {after.calls - before.calls, after.bytes - before.bytes};
}

TEST(MemslotSetTest, OneChangeOfManySlotsCopiesAFewOfThem) {
  const testing::AllocationCount of_1000 = CostOfOne(1000);
  const testing::AllocationCount of_32000 = CostOfOne(32000);
  EXPECT_LE(of_32000.calls, 2 * of_1000.calls);
  // A change copies a chunk or two of each of the three indexes, and the list
  // of the other chunks. A copy of all slots would take 1 MiB.
  EXPECT_LT(of_1000.bytes, 32u << 10);
  EXPECT_LT(of_32000.bytes, 128u << 10);
}

TEST(MemslotSetTest, AllSlotsCanBeReplacedAtOnce) {
  constexpr uint32_t kSlots = 1000;
  std::vector<MemslotSet::SlotPtr> old_slots;
  std::vector<MemslotSet::SlotPtr> new_slots;
  for (uint32_t id = 0; id < kSlots; ++id) {
    old_slots.push_back(Slot(id, 10 * uint64_t{id}, 10, 10 * uint64_t{id}));
    new_slots.push_back(Slot(id, 10 * uint64_t{id}, 10, 10 * uint64_t{id}));
  }
  const MemslotSet before(0, old_slots);
  const testing::AllocationCount count = testing::AllocationsOfThread();
  const MemslotSet after(before, 2,
                         absl::Span<const MemslotSet::SlotPtr>(new_slots));
  // Each slot is in three indexes. A chunk is copied once, not once for each of
  // its slots.
  EXPECT_LT(testing::AllocationsOfThread().bytes - count.bytes,
            kSlots * 3 * 2 * sizeof(MemslotSet::SlotPtr));
  for (uint32_t id = 0; id < kSlots; ++id) {
    ASSERT_EQ(before.FindById(id), old_slots[id].get());
    ASSERT_EQ(before.FindByGfn(Gfn(10 * id)), old_slots[id].get());
    ASSERT_EQ(after.FindById(id), new_slots[id].get());
    ASSERT_EQ(after.FindByGfn(Gfn(10 * id)), new_slots[id].get());
  }
}

}  // namespace
}  // namespace mmu
