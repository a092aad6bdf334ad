#include "server/control/slot_ranges.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmud {
namespace {

TEST(SlotRanges, FindsTheFirstSlotThatRangesTouch) {
  const auto info = [](uint32_t slot, uint64_t first, uint64_t pages) {
    mmu::MemslotInfo of;
    of.config = mmu::testing::Slot(slot, first * 4096, pages * 4096);
    return of;
  };
  const std::vector<mmu::MemslotInfo> slots = {info(5, 10, 10), info(1, 20, 5),
                                               info(7, 40, 10)};
  const auto first = [&](const std::vector<mmu::GfnRange>& ranges) {
    const mmu::MemslotInfo* const slot = FirstSlotIn(slots, ranges);
    return slot == nullptr ? -1 : static_cast<int>(slot->config.slot);
  };
  const auto range = [](uint64_t start, uint64_t end) {
    return mmu::GfnRange{mmu::Gfn(start), mmu::Gfn(end)};
  };
  EXPECT_EQ(first({}), -1);
  EXPECT_EQ(first({range(0, 10), range(25, 40), range(50, 60)}), -1);
  EXPECT_EQ(first({range(0, 11)}), 5);
  EXPECT_EQ(first({range(20, 21)}), 1);
  EXPECT_EQ(first({range(49, 60), range(24, 25)}), 1) << "by address";
  EXPECT_EQ(first({range(30, 41)}), 7);
  EXPECT_EQ(first({range(0, 100)}), 5);
}

}  // namespace
}  // namespace mmud
