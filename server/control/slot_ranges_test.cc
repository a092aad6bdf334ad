#include "server/control/slot_ranges.h"

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/testing/vm_builder.h"
#include "server/base/wall_time.h"
#include "server/control/managed_vm.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

mmu::GfnRange Mebibytes(uint64_t first, uint64_t end) {
  return {mmu::Gfn(first * kMiB / 4096), mmu::Gfn(end * kMiB / 4096)};
}

// Slots at 0, at 1 and at 4 MiB.
class SlotRangesTest : public ::testing::Test {
 protected:
  SlotRangesTest()
      : vm_("vms/a",
            mmu::testing::MakeVm({mmu::testing::Slot(2, 0, kMiB),
                                  mmu::testing::Slot(0, 4 * kMiB, kMiB),
                                  mmu::testing::Slot(1, kMiB, 2 * kMiB)}),
            WallTime::Now(), ManagedVm::MetricsLabel::kOwn) {}

  ManagedVm vm_;
};

TEST_F(SlotRangesTest, AdjacentSlotsAreOneRange) {
  EXPECT_EQ(SlotRanges(vm_.SortedSlots()),
            (std::vector<mmu::GfnRange>{Mebibytes(0, 3), Mebibytes(4, 5)}));
}

TEST_F(SlotRangesTest, ARangeMayCrossSlotsButNoHole) {
  const std::vector<mmu::GfnRange> slots = SlotRanges(vm_.SortedSlots());
  for (const mmu::GfnRange inside :
       {Mebibytes(0, 3), Mebibytes(0, 1), Mebibytes(2, 3), Mebibytes(4, 5)}) {
    EXPECT_TRUE(CheckInsideSlots(inside, slots, "r").ok());
  }
  for (const mmu::GfnRange outside :
       {Mebibytes(2, 4), Mebibytes(3, 4), Mebibytes(4, 6), Mebibytes(6, 7)}) {
    const absl::Status status = CheckInsideSlots(outside, slots, "r");
    EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
    EXPECT_EQ(mmu::DetailOf(status).reason, mmu::Reason::kGpaOutOfRange);
    EXPECT_EQ(mmu::DetailOf(status).field, "r");
    EXPECT_EQ(mmu::DetailOf(status).kvm_errno, 0) << "KVM has no such call";
  }
  EXPECT_FALSE(CheckInsideSlots(Mebibytes(0, 1), {}, "r").ok());
}

}  // namespace
}  // namespace mmud
