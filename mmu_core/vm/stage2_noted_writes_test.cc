// Writes that the processor notes in descriptors (FEAT_HAFDBS) are in the log
// of a whole VM.

#include <cstdint>
#include <memory>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/dirty_log_test_util.h"
#include "mmu_core/testing/host_pages_test_util.h"
#include "mmu_core/testing/stage2_vm_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/logging/kvm_dirty_log.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::Config;
using ::mmu::testing::HostPagesOf;
using ::mmu::testing::HostUnmaps;
using ::mmu::testing::kBlocks;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::kPages2M;
using ::mmu::testing::MakeStage2Vm;
using ::mmu::testing::MaskOf;
using ::mmu::testing::PagesOf;
using ::mmu::testing::ReadValue;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::Stage2LeafOf;
using ::mmu::testing::StartLog;
using ::mmu::testing::StopLog;
using ::mmu::testing::TestStart;
using ::mmu::testing::Write;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

Stage2Config DirtyStateByHardware() {
  Stage2Config options;
  options.access_flag = Stage2Config::AccessFlag::kByHardware;
  options.dirty_state = Stage2Config::DirtyState::kByHardware;
  return options;
}

// With the dirty state by hardware only the descriptors know of a first write.
// Covers: ARM-36
TEST(Stage2NotedWritesTest, WritesThatTheProcessorNotesAreInTheLog) {
  auto vm = MakeStage2Vm(2 * kMiB, DirtyStateByHardware());
  ASSERT_TRUE(vm->SetMemslot(Slot(1, kGiB, kMiB)).ok());
  ASSERT_TRUE(StartLog(*vm).ok());
  const auto write_noted = [&](uint64_t page) {
    ReadValue(*vm, page * kPageSize);
    const uint64_t faults = vm->Stats().vcpus.pf_taken;
    ASSERT_EQ(Write(*vm, page * kPageSize, 9), AccessOutcome::kDone);
    EXPECT_EQ(vm->Stats().vcpus.pf_taken, faults);
    EXPECT_TRUE(Stage2LeafOf(*vm, page).HasNotedWrite());
  };
  // The blocks are protected: the first write to a page of each splits it.
  ASSERT_EQ(Write(*vm, 0, 1), AccessOutcome::kDone);
  write_noted(7);
  EXPECT_EQ(vm->Stats().vcpus.dirty_pages, 2u);
  ASSERT_EQ(Write(*vm, 7 * kPageSize, 8), AccessOutcome::kDone);
  EXPECT_EQ(vm->Stats().vcpus.dirty_pages, 2u) << "it was dirty already";
  EXPECT_EQ(AuditFindings(*vm), "");
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(0, 7));
  ASSERT_TRUE(ClearAndDeliver(*vm, 0, epoch, 0, kBlocks * kPages2M,
                              MaskOf(kBlocks * kPages2M, {0, 7}), nullptr)
                  .ok());
  EXPECT_FALSE(Stage2LeafOf(*vm, 7).HasNotedWrite());
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), IsEmpty());
  // The first write after a clear is noted again, also to a page that was
  // marked by its fault.
  write_noted(0);
  // Another slot goes alone.
  ASSERT_TRUE(vm->DeleteMemslot(1, Undelivered::kDiscard).ok());
  EXPECT_TRUE(Stage2LeafOf(*vm, 0).HasNotedWrite());
  // All mappings go. Only the descriptor knows of the write to page 11, since
  // the end of the slot looked at the tables before.
  write_noted(11);
  {
    MutexLock slots(vm->state().slots.slots_lock);
    vm->state().mmus.FastZapAll(LockOp::kZap, nullptr);
  }
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(0, 11));
  // The host takes a page away.
  write_noted(9);
  HostUnmaps(*vm, HostPagesOf(*vm, 0, 0, 512));
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(0, 9, 11));
  // The log does not end while such a page is unknown.
  ASSERT_TRUE(ClearAndDeliver(*vm, 0, epoch, 0, kBlocks * kPages2M,
                              MaskOf(kBlocks * kPages2M, {0, 9, 11}), nullptr)
                  .ok());
  write_noted(3);
  EXPECT_EQ(
      DetailOf(StopLog(*vm, RecoverOnStop::kNo, Undelivered::kRefuse).status())
          .reason,
      Reason::kUndeliveredPages);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// A VM whose processor notes writes in descriptors. The guest has written to
// pages 0 and 7 since the log began. Of page 7 only the descriptor tells it.
std::unique_ptr<Vm> MakeWithANotedWrite() {
  auto vm = MakeStage2Vm(2 * kMiB, DirtyStateByHardware());
  DirtyLogStart start =
      TestStart(Config(InitiallySet::kNo, SplitPolicy::kNone));
  start.ttl = absl::Seconds(60);
  EXPECT_TRUE(vm->StartDirtyLog(start, nullptr).ok());
  // Splits the block, whose pages then fault one by one.
  EXPECT_EQ(Write(*vm, 0, 1), AccessOutcome::kDone);
  ReadValue(*vm, 7 * kPageSize);
  EXPECT_EQ(Write(*vm, 7 * kPageSize, 1), AccessOutcome::kDone);
  EXPECT_TRUE(Stage2LeafOf(*vm, 7).HasNotedWrite());
  return vm;
}

// A page counts as made dirty when the processor notes the write, but not if it
// is dirty already, or after the log has ended.
TEST(Stage2NotedWritesTest, AWriteThatTheProcessorNotesCountsOnce) {
  auto vm = MakeWithANotedWrite();
  const auto write = [&vm](uint64_t page) {
    ASSERT_EQ(Write(*vm, page * kPageSize, 2), AccessOutcome::kDone);
    EXPECT_TRUE(Stage2LeafOf(*vm, page).HasNotedWrite());
  };
  const auto dirtied = [&vm] { return vm->Stats().vcpus.dirty_pages; };
  EXPECT_EQ(dirtied(), 2u);
  for (const uint64_t page : {3, 5, 9}) {
    ReadValue(*vm, page * kPageSize);
    write(page);
  }
  EXPECT_EQ(dirtied(), 5u);
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(0, 3, 5, 7, 9));
  // Protects pages 5 and 7 as well, and marks them again.
  ASSERT_TRUE(ClearAndDeliver(*vm, 0, epoch, 0, kBlocks * kPages2M,
                              MaskOf(kBlocks * kPages2M, {3, 9}), nullptr)
                  .ok());
  EXPECT_FALSE(Stage2LeafOf(*vm, 5).HasNotedWrite());
  write(5);
  EXPECT_EQ(dirtied(), 5u);
  write(9);
  EXPECT_EQ(dirtied(), 6u);
  ASSERT_TRUE(StopLog(*vm, RecoverOnStop::kNo).ok());
  write(3);
  EXPECT_EQ(dirtied(), 6u);
}

// Covers: ARM-36, DL-10
TEST(Stage2NotedWritesTest, TheCallsOfKvmReturnWritesThatTheProcessorNotes) {
  {
    auto vm = MakeWithANotedWrite();
    const auto words = GetAndClearDirtyLog(vm->state(), 0, nullptr);
    ASSERT_TRUE(words.ok());
    EXPECT_THAT(PagesOf(*words), ElementsAre(0, 7));
    EXPECT_FALSE(Stage2LeafOf(*vm, 7).HasNotedWrite());
    EXPECT_EQ(AuditFindings(*vm), "");
  }
  auto vm = MakeWithANotedWrite();
  for (int i = 0; i < 2; ++i) {
    const auto words = CopyDirtyLog(vm->state(), 0);
    ASSERT_TRUE(words.ok());
    EXPECT_THAT(PagesOf(*words), ElementsAre(0, 7));
  }
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: ARM-36, DL-42
TEST(Stage2NotedWritesTest, AStopCountsWritesThatTheProcessorNotesAsLost) {
  {
    auto vm = MakeWithANotedWrite();
    const auto stopped =
        StopLog(*vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr);
    ASSERT_TRUE(stopped.ok());
    EXPECT_EQ(stopped->discarded, UndeliveredCounts{.open = 2});
  }
  auto vm = MakeWithANotedWrite();
  const auto abandoned =
      vm->StopAbandonedDirtyLog(vm->FindDirtyLog()->ttl_end, nullptr);
  ASSERT_TRUE(abandoned.has_value());
  EXPECT_EQ(abandoned->stopped.discarded, UndeliveredCounts{.open = 2});
}

}  // namespace
}  // namespace mmu
