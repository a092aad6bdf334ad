// Races of faults: with a writer of mmu_lock, with ageing that tracks accesses,
// and with slots that appear (RACE-19 to RACE-21 of mmu_core/LOCKING.md). Each
// is built step by step.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/paging/mmio_spte.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/asymmetric_barrier.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/await.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/race_test_util.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"

namespace mmu::testing {
namespace {

using ::testing::ElementsAre;

constexpr uint64_t kPages = 2 * kMiB / kPageSize;
constexpr uint64_t kPage = 5;
constexpr uint64_t kPageGpa = kPage * kPageSize;

// --- RACE-19 ---

// A fault and a writer of one lock. The writer holds the lock until the test
// tells it to leave.
struct FaultAndWriter {
  FaultAndWriter() {
    threads.Add("fault", [this] {
      MmuReadLocked lock(mmu_lock, LockOp::kFault);
      fault_is_in = true;
      together = writer_is_in.load();
    });
    threads.Add("writer", [this] {
      MmuWriteLocked lock(mmu_lock, LockOp::kZap);
      writer_is_in = true;
      while (!writer_may_leave) std::this_thread::yield();
      writer_is_in = false;
    });
  }

  MmuLock mmu_lock;
  std::atomic<bool> fault_is_in{false};
  std::atomic<bool> writer_is_in{false};
  std::atomic<bool> writer_may_leave{false};
  std::atomic<bool> together{false};
  Interleaving threads;
};

// The fault has announced itself and has not looked for writers. The writer
// waits for it; the fault steps back and enters after the writer.
// Covers: LCK-04, TST-50
TEST(RaceFaultsTest, Race19FaultThatWasAnnouncedStepsBackForAWriter) {
  FaultAndWriter test;
  test.threads.RunTo("fault", HookPoint::kFaultToLook);
  test.threads.Start("writer");
  Await("one thread waits for the other",
        [&] { return test.mmu_lock.IsContended() || test.writer_is_in; });
  EXPECT_FALSE(test.writer_is_in) << "the fault may be in already";
  test.threads.Start("fault");
  Await("the writer or the fault is in",
        [&] { return test.writer_is_in || test.fault_is_in; });
  EXPECT_TRUE(test.writer_is_in);
  EXPECT_FALSE(test.fault_is_in);
  test.writer_may_leave = true;
  test.threads.WaitForEnd("writer");
  test.threads.WaitForEnd("fault");
  EXPECT_TRUE(test.fault_is_in);
  EXPECT_FALSE(test.together);
}

// The writer has announced itself and has not looked for faults. A fault that
// begins now does not enter before the writer.
// Covers: LCK-04
TEST(RaceFaultsTest, Race19FaultThatComesAfterTheWritersAnnouncementQueues) {
  FaultAndWriter test;
  test.threads.RunTo("writer", HookPoint::kWriterToLook);
  test.threads.Start("fault");
  Await("one thread waits for the other",
        [&] { return test.mmu_lock.IsContended() || test.fault_is_in; });
  EXPECT_FALSE(test.fault_is_in);
  test.threads.Start("writer");
  Await("the writer is in", [&] { return test.writer_is_in.load(); });
  EXPECT_FALSE(test.fault_is_in);
  test.writer_may_leave = true;
  test.threads.WaitForEnd("writer");
  test.threads.WaitForEnd("fault");
  EXPECT_TRUE(test.fault_is_in);
  EXPECT_FALSE(test.together);
}

#ifndef MMU_TSAN  // TSan knows no such barrier

bool HasPassed(const Interleaving& threads, const char* name, HookPoint point) {
  const std::vector<HookPoint> trace = threads.Trace(name);
  return std::find(trace.begin(), trace.end(), point) != trace.end();
}

// The first fault of a lock has announced itself. Without the barrier, no
// writer sees this yet. So the writer must come to the barrier before it looks
// for faults, although the lock word shows no holder, and must wait for this
// fault.
// Covers: LCK-04, TST-50
TEST(RaceFaultsTest, Race19WriterThatFindsASlotInUseComesToTheBarrier) {
  FaultAndWriter test;
  test.threads.RunTo("fault", HookPoint::kFaultToLook);
  test.threads.RunTo("writer", HookPoint::kHeavyBarrier);
  EXPECT_FALSE(test.mmu_lock.IsContended()) << "it has not looked yet";
  test.writer_may_leave = true;
  test.threads.Start("writer");
  Await("a thread waits for mmu_lock",
        [&] { return test.mmu_lock.IsContended(); });
  EXPECT_FALSE(test.writer_is_in);
  test.threads.RunToEnd("fault");
  test.threads.WaitForEnd("writer");
  EXPECT_TRUE(test.fault_is_in);
  EXPECT_FALSE(test.together);
}

// The writer has announced itself and has not decided on the barrier when the
// first fault begins. The decision must use the state after the announcement.
// Covers: LCK-04
TEST(RaceFaultsTest, Race19WriterDecidesOnTheBarrierAfterItsAnnouncement) {
  FaultAndWriter test;
  test.threads.RunTo("writer", HookPoint::kWriterToLook);
  test.threads.RunTo("fault", HookPoint::kFaultToLook);
  test.threads.RunTo("writer", HookPoint::kHeavyBarrier);
  test.writer_may_leave = true;
  test.threads.Start("fault");
  test.threads.RunToEnd("writer");
  test.threads.WaitForEnd("fault");
  EXPECT_TRUE(test.fault_is_in);
  EXPECT_FALSE(test.together);
}

// The writer has found that no slot was ever used, and has entered without a
// barrier. The first fault uses a slot now, finds the writer and queues.
// Covers: LCK-04, TST-50
TEST(RaceFaultsTest, Race19FirstFaultFindsTheWriterThatLeftTheBarrierOut) {
  FaultAndWriter test;
  test.threads.RunTo("writer", HookPoint::kWriteLocked);
  EXPECT_FALSE(HasPassed(test.threads, "writer", HookPoint::kHeavyBarrier));
  test.threads.Start("writer");
  Await("the writer is in", [&] { return test.writer_is_in.load(); });
  test.threads.Start("fault");
  Await("one thread waits for the other",
        [&] { return test.mmu_lock.IsContended() || test.fault_is_in; });
  EXPECT_FALSE(test.fault_is_in);
  EXPECT_TRUE(HasPassed(test.threads, "fault", HookPoint::kFaultToLook));
  test.writer_may_leave = true;
  test.threads.WaitForEnd("writer");
  test.threads.WaitForEnd("fault");
  EXPECT_TRUE(test.fault_is_in);
  EXPECT_FALSE(test.together);
}

// A slot that was used once may be used again at any time, without a store that
// a writer sees. So an empty slot does not save the barrier.
// Covers: LCK-04
TEST(RaceFaultsTest, Race19SlotThatWasUsedOnceKeepsTheBarrierForGood) {
  FaultAndWriter test;
  test.threads.RunToEnd("fault");
  test.threads.RunTo("writer", HookPoint::kHeavyBarrier);
  test.writer_may_leave = true;
  test.threads.RunToEnd("writer");
}

#endif

// --- RACE-20 ---

// A logging VM without A/D bits; page 5 is mapped, clean and young.
std::unique_ptr<Vm> MakeLoggingVmWithoutAd() {
  VmConfig config;
  config.ad_bits = VmConfig::AdBits::kOff;
  config.memslots = {Slot(0, 0, 2 * kMiB)};
  auto vm = MakeVmFrom(config);
  Touch(*vm, GfnRange::Of(Gfn(kPage), 1));
  EXPECT_TRUE(StartLog(*vm).ok());
  return vm;
}

uint64_t AgeAll(Vm& vm) {
  const auto aged =
      vm.Age(GfnRange::Of(Gfn(0), kPages), AgeMode::kTestAndClear, nullptr);
  EXPECT_TRUE(aged.ok());
  return aged->young_page_count;
}

// Covers: TST-50
TEST(RaceFaultsTest, Race20FaultWhoseEntryWasAgedLooksAgainAndRestoresIt) {
  auto vm = MakeLoggingVmWithoutAd();
  const SpteFormat& format = vm->state().tdp.format();
  Interleaving threads;
  threads.Add("fault", [&] { Write(*vm, kPageGpa, 7); });
  threads.Add("age", [&] { EXPECT_EQ(AgeAll(*vm), 1u); });
  threads.RunTo("fault", HookPoint::kFastFaultToExchange);
  threads.RunToEnd("age");
  ASSERT_TRUE(format.IsAccessTracked(SpteOf(vm->state(), Gfn(kPage))));
  threads.RunTo("fault", HookPoint::kFastFaultToExchange);  // once more
  threads.RunToEnd("fault");
  const Spte spte = SpteOf(vm->state(), Gfn(kPage));
  EXPECT_FALSE(format.IsAccessTracked(spte));
  EXPECT_TRUE(spte.IsWritable());
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(kPage));
  EXPECT_EQ(Memory(*vm, kPageGpa), 7u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: AGE-13, TST-50
TEST(RaceFaultsTest, Race20AgeingGivesUpWhereAFaultWasFaster) {
  auto vm = MakeLoggingVmWithoutAd();
  const SpteFormat& format = vm->state().tdp.format();
  Interleaving threads;
  threads.Add("age",
              [&] { EXPECT_EQ(AgeAll(*vm), 1u) << "young all the same"; });
  threads.RunTo("age", HookPoint::kAgeToExchange);
  Write(*vm, kPageGpa, 7);  // the fault makes the entry writable
  const Spte written = SpteOf(vm->state(), Gfn(kPage));
  threads.RunToEnd("age");
  EXPECT_EQ(SpteOf(vm->state(), Gfn(kPage)), written);
  EXPECT_FALSE(format.IsAccessTracked(written));
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(kPage));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// --- RACE-21 ---

// The entry for `gpa` in the tables of vCPU 0.
Spte EntryFor(Vm& vm, uint64_t gpa) {
  RcuReadGuard rcu;
  const TdpRoot& root = *vm.state().vcpus[0]->root();
  TdpCursor c(root.table(), root.level(), GfnRange::Of(ToGfn(Gpa(gpa)), 1),
              Level::k4K);
  c.DescendToFirst();
  return c.old_spte();
}

// A fault has found no slot. A slot is published before the fault installs its
// MMIO SPTE. This SPTE is outdated from the start, so the next access maps the
// memory.
// Covers: SPTE-43, PF-36, SLOT-22, TST-50
TEST(RaceFaultsTest, Race21MmioSpteOfAnOlderGenerationIsNotBelieved) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  Read(*vm, 0);
  AccessOutcome outcome = AccessOutcome::kError;
  Interleaving threads;
  threads.Add("fault", [&] { outcome = Write(*vm, kGiB, 7); });
  threads.Add("create", [&] {
    EXPECT_TRUE(vm->SetMemslot(Slot(1, kGiB, 2 * kMiB)).ok());
  });
  threads.RunTo("fault", HookPoint::kSlotToFault);
  threads.RunTo("create", HookPoint::kGracePeriod);
  EXPECT_EQ(SlotOf(*vm, ToGfn(Gpa(kGiB))).id, 1u) << "published";
  threads.Start("create");
  threads.RunToEnd("fault");
  threads.WaitForEnd("create");
  EXPECT_EQ(outcome, AccessOutcome::kEmulated) << "the slot came after it";
  ASSERT_TRUE(vm->state().mmio.IsMmio(EntryFor(*vm, kGiB)));
  EXPECT_EQ(Write(*vm, kGiB, 8), AccessOutcome::kDone);
  EXPECT_EQ(Memory(*vm, kGiB), 8u);
  EXPECT_FALSE(vm->state().mmio.IsMmio(EntryFor(*vm, kGiB)));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// An MMIO SPTE is found while the slot that outdates it is being published. It
// must not be used in between.
// Covers: SPTE-43, SLOT-22
TEST(RaceFaultsTest, Race21MmioSpteIsNotBelievedWhileASlotIsPublished) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  Read(*vm, 0);
  ASSERT_EQ(Write(*vm, kGiB, 7), AccessOutcome::kEmulated);
  ASSERT_TRUE(vm->state().mmio.IsMmio(EntryFor(*vm, kGiB)));
  Interleaving threads;
  threads.Add("create", [&] {
    EXPECT_TRUE(vm->SetMemslot(Slot(1, kGiB, 2 * kMiB)).ok());
  });
  threads.RunTo("create", HookPoint::kGracePeriod);
  EXPECT_EQ(Write(*vm, kGiB, 8), AccessOutcome::kDone);
  threads.RunToEnd("create");
  EXPECT_EQ(Memory(*vm, kGiB), 8u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu::testing
