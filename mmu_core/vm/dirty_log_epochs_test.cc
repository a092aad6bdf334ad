// The epoch protocol: seal, read, clear, in this order; and the numbers of
// epochs from one log to the next.

#include <cerrno>
#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/dirty_log_test_util.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::ErrorOf;
using ::mmu::testing::ErrorText;
using ::mmu::testing::kMiB;
using ::mmu::testing::kPlain;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MaskOf;
using ::mmu::testing::PagesOf;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::SpteOf;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::ElementsAre;

TEST(EpochProtocolTest, SealingForgetsNothingUntilItIsCleared) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1));
  Write(*vm, 0x2000);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1, 2)) << "merged";
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(1, 2));
  ASSERT_TRUE(
      vm->ClearDirtyLog(0, epoch, 0, 64, MaskOf(64, {1}), nullptr).ok());
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(2));
}

TEST(EpochProtocolTest, APeekShowsOpenAndSealedPagesAndClosesNothing) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  Write(*vm, 0x2000);
  std::vector<uint64_t> words(16);
  ASSERT_TRUE(vm->ReadDirtyLog(0, 0, 0, absl::MakeSpan(words)).ok());
  EXPECT_THAT(PagesOf(words), ElementsAre(1, 2));
  ASSERT_TRUE(vm->ReadDirtyLog(0, epoch, 0, absl::MakeSpan(words)).ok());
  EXPECT_THAT(PagesOf(words), ElementsAre(1));
  EXPECT_EQ(vm->DirtyLogs()[0].open_epoch, epoch + 1);
}

// Covers: DL-24, DL-12
TEST(EpochProtocolTest, AClearCountsWhatWasSetAndTouchesNothingElse) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Touch(*vm, GfnRange::Of(Gfn(0), 3));
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  MmuCost cost;
  auto cleared =
      vm->ClearDirtyLog(0, epoch, 0, 128, MaskOf(128, {0, 1, 70}), &cost);
  ASSERT_TRUE(cleared.ok()) << cleared.status();
  EXPECT_EQ(cleared->cleared_page_count, 2u);
  EXPECT_EQ(cleared->already_clean_page_count, 1u);
  EXPECT_EQ(cost.tlb_flush_count, 1);
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(0)).IsWritable());
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(1)).IsWritable());
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(2)).IsWritable());

  // Again: nothing was set, so nothing is protected and nobody flushes.
  MmuCost again;
  cleared =
      vm->ClearDirtyLog(0, epoch, 0, 128, MaskOf(128, {0, 1, 70}), &again);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->cleared_page_count, 0u);
  EXPECT_EQ(again.tlb_flush_count, 0);
  EXPECT_EQ(again.max_lock_hold, absl::ZeroDuration());
}

// Covers: DL-11, TLB-05
TEST(EpochProtocolTest, AStaleWritableTranslationFaultsAfterAClear) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x1000, 1);
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  Write(*vm, 0x1000, 2);  // through the TLB, in no newer epoch
  ASSERT_TRUE(
      vm->ClearDirtyLog(0, epoch, 0, 64, MaskOf(64, {1}), nullptr).ok());
  Write(*vm, 0x1000, 3);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1));
}

TEST(EpochProtocolTest, WrongEpochsAreRefusedAndNothingChanges) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  uint64_t first = 0;
  SealAndList(*vm, 0, &first);
  uint64_t second = 0;
  SealAndList(*vm, 0, &second);
  ASSERT_EQ(second, first + 1);
  std::vector<uint64_t> words(16);
  EXPECT_EQ(
      ErrorOf(vm->ReadDirtyLog(0, first, 0, absl::MakeSpan(words))),
      ErrorText(absl::StatusCode::kAborted, "EPOCH_SUPERSEDED", "epoch", 0));
  EXPECT_EQ(
      ErrorOf(vm->ReadDirtyLog(0, second + 1, 0, absl::MakeSpan(words))),
      ErrorText(absl::StatusCode::kNotFound, "EPOCH_UNKNOWN", "epoch", 0));
  for (const uint64_t epoch : {uint64_t{0}, first, second + 1}) {
    EXPECT_EQ(
        ErrorOf(vm->ClearDirtyLog(0, epoch, 0, 64, MaskOf(64, {1}), nullptr)
                    .status()),
        ErrorText(absl::StatusCode::kAborted, "EPOCH_MISMATCH", "epoch", 0));
  }
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1));
}

TEST(EpochProtocolTest, ReadsOutsideTheSlotAreRefused) {
  auto vm = MakeVm({Slot(0, 0, 100 * kPageSize)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  std::vector<uint64_t> two(2);
  std::vector<uint64_t> three(3);
  EXPECT_TRUE(vm->ReadDirtyLog(0, 0, 0, absl::MakeSpan(two)).ok());
  EXPECT_TRUE(vm->ReadDirtyLog(0, 0, 128, absl::Span<uint64_t>()).ok());
  EXPECT_EQ(
      ErrorOf(vm->ReadDirtyLog(0, 0, 0, absl::MakeSpan(three))),
      ErrorText(absl::StatusCode::kOutOfRange, "INVALID_RANGE", "range", 0));
  EXPECT_EQ(
      ErrorOf(vm->ReadDirtyLog(0, 0, 64, absl::MakeSpan(two))),
      ErrorText(absl::StatusCode::kOutOfRange, "INVALID_RANGE", "range", 0));
  EXPECT_EQ(
      ErrorOf(vm->ReadDirtyLog(0, 0, 1, absl::MakeSpan(two))),
      ErrorText(absl::StatusCode::kOutOfRange, "INVALID_RANGE", "range", 0));
}

TEST(EpochProtocolTest, SlotsThatDoNotLogOrDoNotExistAreToldApart) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  std::vector<uint64_t> words(1);
  const auto all = [&](uint32_t slot) {
    return std::vector<absl::Status>{
        vm->SealDirtyLog(slot, nullptr).status(),
        vm->ReadDirtyLog(slot, 0, 0, absl::MakeSpan(words)),
        vm->ClearDirtyLog(slot, 1, 0, 64, words, nullptr).status(),
        vm->StopDirtyLog({slot}, Vm::Recover::kNo, Vm::Unacked::kRefuse,
                         nullptr)
            .status()};
  };
  for (const absl::Status& status : all(0)) {
    EXPECT_EQ(ErrorOf(status), ErrorText(absl::StatusCode::kFailedPrecondition,
                                         "DIRTY_LOG_OFF", "slot", ENOENT));
  }
  for (const absl::Status& status : all(5)) {
    EXPECT_EQ(ErrorOf(status), ErrorText(absl::StatusCode::kNotFound,
                                         "MEMSLOT_NOT_FOUND", "slot", ENOENT));
  }
}

// A client that sealed an epoch and was away while the log was stopped and
// started again must not clear what the new log has seen.
TEST(EpochNumbersTest, AnEpochOfAnOlderLogIsNoEpochOfTheNext) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  Write(*vm, 0x3000);
  uint64_t old_epoch = 0;
  SealAndList(*vm, 0, &old_epoch);
  EXPECT_EQ(old_epoch, 1u);
  ASSERT_TRUE(
      vm->StopDirtyLog({}, Vm::Recover::kNo, Vm::Unacked::kDiscard, nullptr)
          .ok());
  ASSERT_TRUE(vm->StartDirtyLog(kPlain, nullptr).ok());
  const auto clear = [&](uint64_t epoch) {
    return DetailOf(vm->ClearDirtyLog(0, epoch, 0, 64, MaskOf(64, {3}), nullptr)
                        .status())
        .reason;
  };
  // Before and after the first seal of the new log.
  EXPECT_EQ(vm->DirtyLogs()[0].sealed_epoch, 0u);
  for (uint64_t epoch = 0; epoch <= vm->DirtyLogs()[0].open_epoch; ++epoch) {
    EXPECT_EQ(clear(epoch), "EPOCH_MISMATCH") << epoch;
  }
  Write(*vm, 0x3000);
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(3));
  EXPECT_GT(epoch, old_epoch + 1);
  EXPECT_EQ(clear(old_epoch), "EPOCH_MISMATCH");
  std::vector<uint64_t> words(16);
  EXPECT_EQ(
      DetailOf(vm->ReadDirtyLog(0, old_epoch, 0, absl::MakeSpan(words))).reason,
      "EPOCH_SUPERSEDED");
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(3)) << "still there";
  EXPECT_EQ(clear(epoch), "");
}

}  // namespace
}  // namespace mmu
