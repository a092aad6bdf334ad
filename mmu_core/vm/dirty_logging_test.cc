// The pages that a logging slot records in its log.

#include <cstdint>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/dirty_log_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/logging/log_stop.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::kEager;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::kPages2M;
using ::mmu::testing::kPlain;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MaskOf;
using ::mmu::testing::Read;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::SpteOf;
using ::mmu::testing::StartLog;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Covers: DL-08
TEST(DirtyLoggingTest, AWriteToAProtectedHugePageSplitsItInPlace) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 7 * kPageSize);
  const VmStatsSnapshot stats = vm->Stats();
  EXPECT_EQ(stats.pages_2m, 0u);
  EXPECT_EQ(stats.pages_4k, kPages2M) << "siblings stay mapped";
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(7)).IsWritable());
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(8)).IsWritable());
  const uint64_t taken = vm->VcpuStats()[0].pf_taken;
  Read(*vm, 8 * kPageSize);
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, taken);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(7));
  EXPECT_EQ(vm->Stats().Splits(Level::k2M, SplitTrigger::kFault), 1u);
}

// Covers: DL-18
TEST(DirtyLoggingTest, AReadThatMapsAPageMarksItOnceAndLaterReadsDoNot) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Read(*vm, 0x3000);
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(3));
  ASSERT_TRUE(
      ClearAndDeliver(*vm, 0, epoch, 0, 1024, MaskOf(1024, {3}), nullptr).ok());
  Read(*vm, 0x3000);
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());
}

// Covers: DL-18
TEST(DirtyLoggingTest, AReadOfAPageThatWasSplitEagerlyNeverMarks) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  ASSERT_TRUE(StartLog(*vm, kEager, nullptr).ok());
  Touch(*vm, GfnRange::Of(Gfn(0), kPages2M), AccessKind::kRead);
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());
}

// Covers: SLOT-53, SLOT-52
TEST(DirtyLoggingTest, OnlyALoggedSlotMarksAndByItsOwnPageNumbers) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  DirtyLogConfig config = kPlain;
  config.slots = {1};
  ASSERT_TRUE(StartLog(*vm, config, nullptr).ok());
  Write(*vm, 0x5000);
  Write(*vm, kGiB + 0x9000);
  EXPECT_THAT(SealAndList(*vm, 1), ElementsAre(9));
  EXPECT_EQ(vm->VcpuStats()[0].dirty_pages, 1u);
}

// Covers: PF-15
TEST(DirtyLoggingTest, AFastFaultMarksThePageAndLeavesTheDirtyBitToHardware) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Write(*vm, 0x3000);
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 0x3000);
  EXPECT_EQ(vm->VcpuStats()[0].pf_fast, 1u);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(3));
}

}  // namespace
}  // namespace mmu
