// The races of dirty rings in mmu_core/LOCKING.md, each built step by step.

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/testing/await.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/race_test_util.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/noted_pages.h"
#include "mmu_core/vm/logging/dirty_rings.h"

namespace mmu::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint32_t kEntries = 256;
constexpr uint64_t kPages = 2 * kMiB / kPageSize;
constexpr uint64_t kPage = 5;
constexpr uint64_t kPageGpa = kPage * kPageSize;

// --- One ring ---

std::vector<DirtyGfn> Collect(DirtyRing& ring) {
  std::vector<DirtyGfn> pages;
  ring.Collect([&](DirtyGfn page) { pages.push_back(page); });
  return pages;
}

// The vCPU has written an entry and not set its flag. No harvest takes the
// entry, or sees half of it.
// Covers: DL-44, TST-50
TEST(RaceRingsTest, Race16EntryIsCollectedOnceItIsFlagged) {
  DirtyRing ring(kEntries, 0);
  // The entry still holds the page of the previous lap.
  for (uint64_t i = 0; i < kEntries; ++i) ring.Push({9, i});
  Collect(ring);
  while (ring.TakeCollected().has_value()) {
  }
  Interleaving threads;
  threads.Add("vcpu", [&] { ring.Push({1, 77}); });
  threads.RunTo("vcpu", HookPoint::kEntryToFlags);
  EXPECT_THAT(Collect(ring), IsEmpty());
  EXPECT_FALSE(ring.TakeCollected().has_value());
  threads.RunToEnd("vcpu");
  EXPECT_THAT(Collect(ring), ElementsAre(DirtyGfn{1, 77}));
}

// A reset runs between the two steps of the harvest. It must not free the
// entry, because the page may not be in any epoch yet.
// Covers: DL-41, DL-44, TST-50
TEST(RaceRingsTest, Race16ResetTakesAnEntryOnlyAfterItsPageWasRecorded) {
  DirtyRing ring(kEntries, 0);
  ring.Push({1, 77});
  std::vector<DirtyGfn> recorded;
  Interleaving threads;
  threads.Add("harvest", [&] {
    ring.Collect([&](DirtyGfn page) { recorded.push_back(page); });
  });
  threads.RunTo("harvest", HookPoint::kRecordToCollected);
  EXPECT_THAT(recorded, ElementsAre(DirtyGfn{1, 77}));
  EXPECT_FALSE(ring.TakeCollected().has_value());
  threads.RunToEnd("harvest");
  EXPECT_TRUE(ring.TakeCollected().has_value());
}

// The vCPU may use an entry again only when the reset has finished with it.
// Otherwise the reset would erase the page that the vCPU writes there.
// Covers: DL-41, DL-44
TEST(RaceRingsTest, Race16VcpuReusesAnEntryOnlyAfterTheResetIsThroughWithIt) {
  DirtyRing ring(kEntries, 0);
  for (uint64_t i = 0; i < kEntries; ++i) ring.Push({1, i});
  Collect(ring);
  absl::optional<DirtyGfn> taken;
  Interleaving threads;
  threads.Add("reset", [&] { taken = ring.TakeCollected(); });
  threads.RunTo("reset", HookPoint::kFreeToIndex);
  if (ring.used() < ring.size()) ring.Push({1, 1000});  // the ring has no room
  threads.RunToEnd("reset");
  EXPECT_EQ(taken, (DirtyGfn{1, 0}));
  ASSERT_EQ(ring.used(), kEntries - 1);
  ring.Push({1, 1001});
  EXPECT_THAT(Collect(ring), ElementsAre(DirtyGfn{1, 1001}));
}

// --- Rings of a VM ---

// Two slots of small pages; pages 5 of both are mapped, slot 0 logs.
std::unique_ptr<Vm> MakeLoggingRingVm() {
  auto vm =
      MakeRingVm({Slot(0, 0, 2 * kMiB), Slot(1, kGiB, 2 * kMiB)}, kEntries);
  Touch(*vm, GfnRange::Of(Gfn(kPage), 1));
  DirtyLogConfig config;
  config.slots = {0};
  EXPECT_TRUE(StartLog(*vm, config, nullptr).ok());
  return vm;
}

uint64_t Reset(Vm& vm) {
  const auto count = ResetDirtyRings(
      vm.state(), [] { return false; }, nullptr);
  EXPECT_TRUE(count.ok());
  return count.value_or(0);
}

bool IsLocked(Mutex& mutex) {
  if (!mutex.TryLock()) return true;
  mutex.Unlock();
  return false;
}

// A whole harvest and reset run between the fault's look at the entry and its
// exchange. If the fault pushed first, they would take its ring entry, and its
// write would be in no log.
// Covers: PF-15, DL-43, TST-50
TEST(RaceRingsTest, Race17ResetBeforeTheFastFaultsExchangeLosesNothing) {
  auto vm = MakeLoggingRingVm();
  Interleaving threads;
  threads.Add("fault", [&] { Write(*vm, kPageGpa, 7); });
  threads.Add("harvest", [&] { Harvest(*vm, 0, kPages); });
  threads.RunTo("fault", HookPoint::kFastFaultToExchange);
  threads.RunToEnd("harvest");
  threads.RunToEnd("fault");
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(kPage));
  EXPECT_EQ(Memory(*vm, kPageGpa), 7u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The reset of an older entry of the page comes between the exchange and the
// push. The page ends write-protected and with an entry, and the guest's next
// write faults again.
// Covers: PF-15, DL-43
TEST(RaceRingsTest, Race17ResetBetweenExchangeAndPushReportsOnceMore) {
  auto vm = MakeLoggingRingVm();
  Write(*vm, kPageGpa, 1);
  uint64_t epoch = 0;
  ASSERT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(kPage));
  // The page is write-protected again. Its ring entry is collected and not
  // reset.
  WriteProtect(*vm, GfnRange::Of(Gfn(kPage), 1));
  vm->state().vcpus[0]->tlb().FlushAll();
  const uint64_t taken = vm->VcpuStats()[0].pf_taken;

  Interleaving threads;
  threads.Add("fault", [&] { Write(*vm, kPageGpa, 7); });
  threads.Add("reset", [&] { EXPECT_EQ(Reset(*vm), 1u); });
  threads.RunTo("fault", HookPoint::kExchangeToMark);
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(kPage)).IsWritable());
  threads.RunToEnd("reset");
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(kPage)).IsWritable());
  threads.RunToEnd("fault");
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, taken + 2);
  EXPECT_EQ(vm->state().vcpus[0]->dirty_ring()->used(), 2u);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(kPage));
  EXPECT_EQ(Memory(*vm, kPageGpa), 7u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// A slow fault has pushed its page and not installed the leaf. The reset that
// frees the ring entry must wait for the leaf, so that it can protect it.
// Covers: SPTE-16, DL-43
TEST(RaceRingsTest, Race17ResetWaitsForTheSlowFaultThatPushed) {
  auto vm = MakeLoggingRingVm();
  constexpr uint64_t kOther = 9;  // not mapped yet
  Interleaving threads;
  threads.Add("fault", [&] { Read(*vm, kOther * kPageSize); });
  std::vector<uint64_t> harvested;
  threads.Add("harvest", [&] { harvested = Harvest(*vm, 0, kPages); });
  threads.RunTo("fault", HookPoint::kMarkToInstall);
  threads.RunTo("harvest", HookPoint::kTakeToProtect);
  threads.Start("harvest");
  // The harvest asks for mmu_lock in write mode, and the fault holds it in read
  // mode.
  Await("a thread waits for mmu_lock",
        [&] { return vm->state().mmu_lock.IsContended(); });
  EXPECT_FALSE(threads.HasEnded("harvest"));
  threads.Start("fault");
  threads.WaitForEnd("harvest");
  threads.WaitForEnd("fault");
  EXPECT_THAT(harvested, ElementsAre(kOther));
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(kOther)).IsPresent());
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(kOther)).IsWritable());
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Slot 1's flag is published, and its pages are not protected yet. A page that
// becomes dirty now goes into the ring. A harvest must find the log of slot 1.
// Covers: SLOT-53, TST-50
TEST(RaceRingsTest, Race18HarvestWhileTheLogIsSwitchedOnDropsNothing) {
  auto vm = MakeLoggingRingVm();
  ASSERT_TRUE(StopLog(*vm).ok());
  constexpr uint64_t kOther = 9;  // a page of slot 1, not mapped yet
  Interleaving threads;
  threads.Add("enable", [&] { EXPECT_TRUE(StartLog(*vm).ok()); });
  threads.RunTo("enable", HookPoint::kFlagToProtect);
  Write(*vm, kGiB + kOther * kPageSize, 7);
  EXPECT_EQ(vm->state().vcpus[0]->dirty_ring()->used(), 1u);
  HarvestDirtyRings(vm->state());
  EXPECT_EQ(vm->state().dirty_log.FindSlot(1)->CountOpen(), 1u);
  threads.RunToEnd("enable");
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());
  EXPECT_THAT(SealAndList(*vm, 1), ElementsAre(kOther));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Slot 1's flag is published, and the thread waits for readers of the slots
// before. A vCPU that sees the flag pushes a page, for which there is a log.
// Covers: SLOT-53
TEST(RaceRingsTest, Race18HarvestWhileTheSlotIsPublishedDropsNothing) {
  auto vm = MakeLoggingRingVm();
  ASSERT_TRUE(StopLog(*vm).ok());
  constexpr uint64_t kOther = 9;  // a page of slot 1, not mapped yet
  const Gfn other = ToGfn(Gpa(kGiB)) + kOther;
  Interleaving threads;
  threads.Add("enable", [&] { EXPECT_TRUE(StartLog(*vm).ok()); });
  while (!SlotOf(*vm, other).dirty_log_enabled() &&
         !threads.HasEnded("enable")) {
    threads.RunTo("enable", HookPoint::kGracePeriod);
  }
  ASSERT_FALSE(threads.HasEnded("enable"));
  Write(*vm, kGiB + kOther * kPageSize, 7);
  EXPECT_EQ(vm->state().vcpus[0]->dirty_ring()->used(), 1u);
  HarvestDirtyRings(vm->state());
  threads.RunToEnd("enable");
  EXPECT_THAT(SealAndList(*vm, 1), ElementsAre(kOther));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// A page is pushed while a seal is between its harvest and its epoch. No other
// harvest may record the page now: its entry would be collected after the clear
// that must reset it.
// Covers: DL-41, TST-50
TEST(RaceRingsTest, Race25NoHarvestComesBetweenAHarvestAndItsSeal) {
  auto vm = MakeLoggingRingVm();
  Write(*vm, 6 * kPageSize, 1);  // gives the harvest an entry
  Interleaving threads;
  std::vector<uint64_t> harvested;
  threads.Add("harvest", [&] { harvested = Harvest(*vm, 0, kPages); });
  threads.Add("peek", [&] {
    std::vector<uint64_t> words(kPages / 64);
    EXPECT_TRUE(ReadLog(*vm, 0, 0, 0, absl::MakeSpan(words)).ok());
    EXPECT_TRUE(Contains(PagesOf(words), kPage));
  });
  threads.RunTo("harvest", HookPoint::kSummaryToTake);
  Write(*vm, kPageGpa, 7);
  const bool locked = IsLocked(vm->state().ring_harvest_mu);
  EXPECT_TRUE(locked);
  threads.StartTo("peek", HookPoint::kRecordToCollected);
  if (!locked) threads.WaitUntilThere("peek");
  threads.RunToEnd("harvest");
  threads.WaitUntilThere("peek");
  threads.RunToEnd("peek");
  // Either the page was harvested and then protected, or its write is in the
  // log.
  EXPECT_THAT(harvested, ElementsAre(6));
  Write(*vm, kPageGpa, 8);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(kPage));
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu::testing
