#include "mmu_core/memory/mark_dirty.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/memory/memslot.h"

namespace mmu {
namespace {

Memslot SlotAt(uint64_t base_gfn, uint64_t npages) {
  Memslot slot;
  slot.base_gfn = Gfn(base_gfn);
  slot.npages = npages;
  return slot;
}

// Covers: SLOT-53
TEST(MarkDirtyTest, TheBitOfThePageCountedFromTheSlotsStartIsSet) {
  Memslot slot = SlotAt(0x1005, 100);
  slot.flags = kMemslotLogDirtyPages;
  slot.dirty_bitmap = std::make_shared<DirtyBitmap>(100, InitiallySet::kNo);
  EXPECT_TRUE(MarkPageDirty(slot, Gfn(0x1005), nullptr));
  EXPECT_TRUE(MarkPageDirty(slot, Gfn(0x1005 + 99), nullptr));
  EXPECT_EQ(slot.dirty_bitmap->Word(0), 1u);
  EXPECT_EQ(slot.dirty_bitmap->Word(1), uint64_t{1} << 35);
}

TEST(MarkDirtyTest, OnlyTheFirstMarkOfAPageSaysThatItWasClean) {
  Memslot slot = SlotAt(0, 64);
  slot.dirty_bitmap = std::make_shared<DirtyBitmap>(64, InitiallySet::kNo);
  EXPECT_TRUE(MarkPageDirty(slot, Gfn(7), nullptr));
  EXPECT_FALSE(MarkPageDirty(slot, Gfn(7), nullptr));
  slot.dirty_bitmap->ClearBits(0, ~uint64_t{0});
  EXPECT_TRUE(MarkPageDirty(slot, Gfn(7), nullptr));
}

// Covers: SLOT-53
TEST(MarkDirtyTest, ASlotWithoutABitmapRemembersNothing) {
  const Memslot slot = SlotAt(0, 64);
  EXPECT_FALSE(MarkPageDirty(slot, Gfn(7), nullptr));
}

// Covers: SLOT-53
TEST(MarkDirtyTest, ARunningVcpuWithARingPutsThePageThereAndNotInTheBitmap) {
  Memslot slot = SlotAt(0x1005, 100);
  slot.id = 7;
  slot.as_id = 1;
  slot.flags = kMemslotLogDirtyPages;
  slot.dirty_bitmap = std::make_shared<DirtyBitmap>(100, InitiallySet::kNo);
  DirtyRing ring(256, 0);
  EXPECT_TRUE(MarkPageDirty(slot, Gfn(0x1005 + 99), &ring));
  EXPECT_EQ(slot.dirty_bitmap->CountDirty(), 0u);
  std::vector<DirtyGfn> pages;
  ring.Collect([&](DirtyGfn page) { pages.push_back(page); });
  ASSERT_EQ(pages.size(), 1u);
  EXPECT_EQ(pages[0], (DirtyGfn{1u << 16 | 7, 99}));
  // Without a running vCPU the mark goes into the companion bitmap (DL-46);
  // without a bitmap there is no mark.
  EXPECT_TRUE(MarkPageDirty(slot, Gfn(0x1005), nullptr));
  EXPECT_TRUE(slot.dirty_bitmap->Test(0));
  slot.dirty_bitmap.reset();
  EXPECT_FALSE(MarkPageDirty(slot, Gfn(0x1005 + 1), nullptr));
  EXPECT_EQ(ring.used(), 1u);
  slot.flags = 0;
  EXPECT_FALSE(MarkPageDirty(slot, Gfn(0x1005 + 2), &ring)) << "does not log";
  EXPECT_EQ(ring.used(), 1u);
}

TEST(MarkDirtyTest, OfManyMarksOfOnePageExactlyOneFindsItClean) {
  Memslot slot = SlotAt(0, 4096);
  slot.dirty_bitmap = std::make_shared<DirtyBitmap>(4096, InitiallySet::kNo);
  std::atomic<int> found_clean{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (uint64_t gfn = 0; gfn < 4096; ++gfn) {
        if (MarkPageDirty(slot, Gfn(gfn), nullptr)) ++found_clean;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(found_clean.load(), 4096);
  EXPECT_EQ(slot.dirty_bitmap->CountDirty(), 4096u);
}

}  // namespace
}  // namespace mmu
