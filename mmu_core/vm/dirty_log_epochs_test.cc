// The epoch protocol: seal, read and clear, in this order. Also the epoch
// numbers across logs.

#include <cerrno>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/dirty_log_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::ClearLog;
using ::mmu::testing::ErrorOf;
using ::mmu::testing::ErrorText;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::kPlain;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MaskOf;
using ::mmu::testing::PagesOf;
using ::mmu::testing::ReadLog;
using ::mmu::testing::SealAndList;
using ::mmu::testing::SealLog;
using ::mmu::testing::Slot;
using ::mmu::testing::SpteOf;
using ::mmu::testing::StartLog;
using ::mmu::testing::StopLog;
using ::mmu::testing::TestCall;
using ::mmu::testing::TestClaim;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::Each;
using ::testing::ElementsAre;

TEST(EpochProtocolTest, SealingForgetsNothingUntilItIsCleared) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1));
  Write(*vm, 0x2000);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1, 2)) << "merged";
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(1, 2));
  ASSERT_TRUE(
      ClearAndDeliver(*vm, 0, epoch, 0, 64, MaskOf(64, {1}), nullptr).ok());
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(2));
}

TEST(EpochProtocolTest, APeekShowsOpenAndSealedPagesAndClosesNothing) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  Write(*vm, 0x2000);
  std::vector<uint64_t> words(16);
  ASSERT_TRUE(ReadLog(*vm, 0, 0, 0, absl::MakeSpan(words)).ok());
  EXPECT_THAT(PagesOf(words), ElementsAre(1, 2));
  ASSERT_TRUE(ReadLog(*vm, 0, epoch, 0, absl::MakeSpan(words)).ok());
  EXPECT_THAT(PagesOf(words), ElementsAre(1));
  EXPECT_EQ(vm->FindDirtyLog()->state.open_epoch, epoch + 1);
}

// Covers: DL-24, DL-12
TEST(EpochProtocolTest, AClearCountsWhatWasSetAndTouchesNothingElse) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Touch(*vm, GfnRange::Of(Gfn(0), 3));
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  MmuCost cost;
  auto cleared =
      ClearAndDeliver(*vm, 0, epoch, 0, 128, MaskOf(128, {0, 1, 70}), &cost);
  ASSERT_TRUE(cleared.ok()) << cleared.status();
  EXPECT_EQ(cleared->cleared_page_count, 2u);
  EXPECT_EQ(cleared->already_clean_page_count, 1u);
  EXPECT_EQ(cost.tlb_flush_count, 1);
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(0)).IsWritable());
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(1)).IsWritable());
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(2)).IsWritable());

  // A repeated clear finds no page, so it protects nothing and does not flush.
  MmuCost again;
  cleared =
      ClearAndDeliver(*vm, 0, epoch, 0, 128, MaskOf(128, {0, 1, 70}), &again);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->cleared_page_count, 0u);
  EXPECT_EQ(again.tlb_flush_count, 0);
  EXPECT_EQ(again.max_lock_hold, absl::ZeroDuration());
}

// Covers: DL-11, TLB-05
TEST(EpochProtocolTest, AStaleWritableTranslationFaultsAfterAClear) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 0x1000, 1);
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  Write(*vm, 0x1000, 2);  // through the TLB; the page is in no newer epoch
  ASSERT_TRUE(
      ClearAndDeliver(*vm, 0, epoch, 0, 64, MaskOf(64, {1}), nullptr).ok());
  Write(*vm, 0x1000, 3);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1));
}

TEST(EpochProtocolTest, WrongEpochsAreRefusedAndNothingChanges) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 0x1000);
  uint64_t first = 0;
  SealAndList(*vm, 0, &first);
  uint64_t second = 0;
  SealAndList(*vm, 0, &second);
  ASSERT_EQ(second, first + 1);
  std::vector<uint64_t> words(16);
  EXPECT_EQ(ErrorOf(ReadLog(*vm, 0, first, 0, absl::MakeSpan(words))),
            ErrorText(absl::StatusCode::kAborted, Reason::kEpochSuperseded,
                      "epoch", 0));
  EXPECT_EQ(ErrorOf(ReadLog(*vm, 0, second + 1, 0, absl::MakeSpan(words))),
            ErrorText(absl::StatusCode::kNotFound, Reason::kEpochUnknown,
                      "epoch", 0));
  for (const uint64_t epoch : {uint64_t{0}, first, second + 1}) {
    EXPECT_EQ(
        ErrorOf(ClearAndDeliver(*vm, 0, epoch, 0, 64, MaskOf(64, {1}), nullptr)
                    .status()),
        ErrorText(absl::StatusCode::kAborted, Reason::kEpochMismatch, "epoch",
                  0));
  }
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(1));
}

TEST(EpochProtocolTest, ReadsOutsideTheSlotAreRefused) {
  auto vm = MakeVm({Slot(0, 0, 100 * kPageSize)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  std::vector<uint64_t> two(2);
  std::vector<uint64_t> three(3);
  EXPECT_TRUE(ReadLog(*vm, 0, 0, 0, absl::MakeSpan(two)).ok());
  EXPECT_TRUE(ReadLog(*vm, 0, 0, 128, absl::Span<uint64_t>()).ok());
  EXPECT_EQ(ErrorOf(ReadLog(*vm, 0, 0, 0, absl::MakeSpan(three))),
            ErrorText(absl::StatusCode::kOutOfRange, Reason::kInvalidRange,
                      "range", 0));
  EXPECT_EQ(ErrorOf(ReadLog(*vm, 0, 0, 64, absl::MakeSpan(two))),
            ErrorText(absl::StatusCode::kOutOfRange, Reason::kInvalidRange,
                      "range", 0));
  EXPECT_EQ(ErrorOf(ReadLog(*vm, 0, 0, 1, absl::MakeSpan(two))),
            ErrorText(absl::StatusCode::kOutOfRange, Reason::kInvalidRange,
                      "range", 0));
}

TEST(EpochProtocolTest, VmsAndSlotsThatDoNotLogOrDoNotExistAreToldApart) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  std::vector<uint64_t> words(1);
  const auto of_slot = [&](uint32_t slot) {
    return std::vector<std::string>{
        ErrorOf(ReadLog(*vm, slot, 0, 0, absl::MakeSpan(words))),
        ErrorOf(ClearLog(*vm, slot, 1, 0, 64, words).status()),
        ErrorOf(
            vm->AcknowledgePages(TestCall(), 1, slot, 0, 64, words).status())};
  };
  const std::string off = ErrorText(absl::StatusCode::kFailedPrecondition,
                                    Reason::kDirtyLogOff, "vm", ENOENT);
  EXPECT_THAT(of_slot(0), Each(off));
  EXPECT_EQ(ErrorOf(SealLog(*vm).status()), off);
  EXPECT_EQ(ErrorOf(StopLog(*vm).status()), off);
  EXPECT_EQ(ErrorOf(vm->AcknowledgePages(TestCall(), 1).status()), off);
  EXPECT_EQ(
      ErrorOf(vm->AcquireDirtyLog(TestClaim(), absl::nullopt,
                                  LogOwner::Force::kYes, MonotonicTime::Now())
                  .status()),
      off);
  DirtyLogConfig one = kPlain;
  one.slots = {0};
  ASSERT_TRUE(StartLog(*vm, one).ok());
  EXPECT_THAT(of_slot(1),
              Each(ErrorText(absl::StatusCode::kFailedPrecondition,
                             Reason::kDirtyLogOff, "slot", ENOENT)));
  EXPECT_THAT(of_slot(5),
              Each(ErrorText(absl::StatusCode::kNotFound,
                             Reason::kMemslotNotFound, "slot", ENOENT)));
}

// A client sealed an epoch, and then the log was stopped and started again. The
// old epoch must not clear pages of the new log.
TEST(EpochNumbersTest, AnEpochOfAnOlderLogIsNoEpochOfTheNext) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 0x3000);
  uint64_t old_epoch = 0;
  SealAndList(*vm, 0, &old_epoch);
  EXPECT_EQ(old_epoch, 1u);
  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr).ok());
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  const auto clear = [&](uint64_t epoch) {
    return DetailOf(
               ClearAndDeliver(*vm, 0, epoch, 0, 64, MaskOf(64, {3}), nullptr)
                   .status())
        .reason;
  };
  // The old epoch is refused before and after the first seal of the new log.
  EXPECT_EQ(vm->FindDirtyLog()->state.sealed_epoch, 0u);
  for (uint64_t epoch = 0; epoch <= vm->FindDirtyLog()->state.open_epoch;
       ++epoch) {
    EXPECT_EQ(clear(epoch), Reason::kEpochMismatch) << epoch;
  }
  Write(*vm, 0x3000);
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(3));
  EXPECT_GT(epoch, old_epoch + 1);
  EXPECT_EQ(clear(old_epoch), Reason::kEpochMismatch);
  std::vector<uint64_t> words(16);
  EXPECT_EQ(
      DetailOf(ReadLog(*vm, 0, old_epoch, 0, absl::MakeSpan(words))).reason,
      Reason::kEpochUnknown);
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(3)) << "still there";
  EXPECT_EQ(clear(epoch), Reason::kNone);
}

}  // namespace
}  // namespace mmu
