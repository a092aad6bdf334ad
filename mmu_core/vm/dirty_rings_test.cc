#include "mmu_core/vm/logging/dirty_rings.h"

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/memory/guest_memory_access.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/logging/kvm_dirty_log.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::LevelOf;
using ::mmu::testing::MakeRingVm;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::MaskOf;
using ::mmu::testing::PagesOf;
using ::mmu::testing::Read;
using ::mmu::testing::ReadLog;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::SpteOf;
using ::mmu::testing::StartLog;
using ::mmu::testing::StopLog;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint32_t kEntries = 256;
constexpr uint64_t kSoftLimit = 256 - 64;
constexpr uint64_t kPages = 1024;  // of slot 0
constexpr absl::Duration kLong = absl::Seconds(60);

std::unique_ptr<Vm> RingVm(int vcpus = 1) {
  return MakeRingVm({Slot(0, 0, kPages * kPageSize, Level::k2M)}, kEntries,
                    vcpus);
}

std::unique_ptr<Vm> LoggingRingVm(int vcpus = 1) {
  std::unique_ptr<Vm> vm = RingVm(vcpus);
  EXPECT_TRUE(StartLog(*vm, {}, nullptr).ok());
  return vm;
}

DirtyRing& RingOf(Vm& vm, int vcpu = 0) {
  return *vm.state().vcpus[vcpu]->dirty_ring();
}

// Reads the ring of `vcpu` like user space, and marks its entries as collected.
std::vector<DirtyGfn> Collect(Vm& vm, int vcpu = 0) {
  std::vector<DirtyGfn> pages;
  RingOf(vm, vcpu).Collect([&](DirtyGfn page) { pages.push_back(page); });
  return pages;
}

uint64_t Reset(Vm& vm) {
  const absl::StatusOr<uint64_t> count = ResetDirtyRings(
      vm.state(), [] { return false; }, nullptr);
  EXPECT_TRUE(count.ok()) << count.status();
  return *count;
}

bool IsWritable(Vm& vm, uint64_t gfn) {
  return SpteOf(vm.state(), Gfn(gfn)).IsWritable();
}

void ClearAll(Vm& vm, uint64_t epoch, const std::vector<uint64_t>& pages) {
  const auto result =
      ClearAndDeliver(vm, 0, epoch, 0, kPages, MaskOf(kPages, pages), nullptr);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->cleared_page_count, pages.size());
}

absl::Status CreateError(uint32_t entries,
                         VmConfig::CompanionBitmap companion) {
  VmConfig config;
  config.dirty_ring_entries = entries;
  config.companion_bitmap = companion;
  config.memslots = {Slot(0, 0, kMiB)};
  return Vm::Create(config).status();
}

// Covers: DL-40
TEST(DirtyRingsTest, RingsComeWithTheVmOrNotAtAll) {
  constexpr auto kNo = VmConfig::CompanionBitmap::kNo;
  constexpr auto kYes = VmConfig::CompanionBitmap::kYes;
  const auto error = [](uint32_t entries, VmConfig::CompanionBitmap c) {
    return DetailOf(CreateError(entries, c)).kvm_errno;
  };
  EXPECT_EQ(error(128, kNo), EINVAL) << "less than a page";
  EXPECT_EQ(error(300, kNo), EINVAL) << "no power of two";
  EXPECT_EQ(error(131072, kNo), E2BIG);
  EXPECT_TRUE(CreateError(256, kNo).ok());
  EXPECT_TRUE(CreateError(256, kYes).ok());
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  const auto reset = ResetDirtyRings(
      vm->state(), [] { return false; }, nullptr);
  EXPECT_EQ(DetailOf(reset.status()).kvm_errno, EINVAL);
}

// Covers: SLOT-51, SLOT-53, SLOT-54
TEST(DirtyRingsTest, ALoggedSlotHasNoBitmapAndIsMappedSmall) {
  auto vm = MakeRingVm({Slot(0, 0, 4 * kMiB, Level::k2M),
                        Slot(7, 16 * kMiB, 4 * kMiB, Level::k2M)},
                       kEntries);
  Write(*vm, 0);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k2M);
  EXPECT_EQ(RingOf(*vm).used(), 0u) << "nothing logs";
  DirtyLogConfig config;
  config.slots = {7};
  ASSERT_TRUE(StartLog(*vm, config, nullptr).ok());
  {
    RcuReadGuard rcu;
    const Memslot* slot = vm->state().slots.Active(0).FindById(7);
    EXPECT_TRUE(slot->dirty_log_enabled());
    EXPECT_EQ(slot->dirty_bitmap, nullptr);
  }
  Write(*vm, 16 * kMiB + 5 * kPageSize);
  Write(*vm, 2 * kMiB);  // slot 1 does not log
  EXPECT_EQ(LevelOf(vm->state(), Gfn(16 * 256 + 5)), Level::k4K);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(512)), Level::k2M);
  EXPECT_THAT(Collect(*vm), ElementsAre(DirtyGfn{7, 5}));
}

// Covers: DL-25
TEST(DirtyRingsTest, TheCallsForBitmapsAreRefused) {
  auto vm = LoggingRingVm();
  EXPECT_EQ(
      DetailOf(GetAndClearDirtyLog(vm->state(), 0, nullptr).status()).kvm_errno,
      ENXIO);
  EXPECT_EQ(DetailOf(CopyDirtyLog(vm->state(), 0).status()).kvm_errno, ENXIO);
  // This check comes before all others.
  EXPECT_EQ(DetailOf(ClearBitmap(vm->state(), 99, 1, 1, {}, nullptr).status())
                .kvm_errno,
            ENXIO);
}

// Covers: DL-42
TEST(DirtyRingsTest, TheVcpuStaysOutOfTheGuestFromTheSoftLimitOn) {
  auto vm = LoggingRingVm();
  uint64_t pages = 0;
  while (Write(*vm, pages * kPageSize, 7) == AccessOutcome::kDone) ++pages;
  // The access that returned kDirtyRingFull has filled the last entry.
  EXPECT_EQ(pages + 1, kSoftLimit);
  EXPECT_EQ(RingOf(*vm).used(), kSoftLimit);
  Vcpu& vcpu = *vm->state().vcpus[0];
  uint64_t word = 7;
  const auto again = [&] {
    return vcpu.ContinueAccess(Gpa(pages * kPageSize), AccessKind::kWrite,
                               &word);
  };
  EXPECT_EQ(again(), AccessOutcome::kDirtyRingFull);
  EXPECT_EQ(Read(*vm, 0), AccessOutcome::kDirtyRingFull) << "reads as well";
  EXPECT_EQ(vcpu.stats().ring_full_exits.Get(), 3);
  EXPECT_THAT(Collect(*vm), SizeIs(kSoftLimit));
  EXPECT_EQ(again(), AccessOutcome::kDirtyRingFull) << "nothing is free yet";
  EXPECT_EQ(Reset(*vm), kSoftLimit);
  EXPECT_EQ(again(), AccessOutcome::kDone);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-43
TEST(DirtyRingsTest, AResetFreesInOrderAndProtectsWhatItFreed) {
  auto vm = LoggingRingVm();
  for (const uint64_t page : {1, 2, 3, 4}) Write(*vm, page * kPageSize);
  EXPECT_EQ(Reset(*vm), 0u) << "nothing was collected";
  EXPECT_TRUE(IsWritable(*vm, 1));
  for (const uint32_t i : {0, 1, 3}) RingOf(*vm).entry(i).flags.fetch_or(2);
  const uint64_t flushes = vm->Stats().flush.remote_tlb_flush_requests;
  EXPECT_EQ(Reset(*vm), 2u) << "entry 2 was skipped";
  EXPECT_EQ(vm->Stats().flush.remote_tlb_flush_requests, flushes + 1);
  EXPECT_FALSE(IsWritable(*vm, 1));
  EXPECT_FALSE(IsWritable(*vm, 2));
  EXPECT_TRUE(IsWritable(*vm, 3));
  EXPECT_TRUE(IsWritable(*vm, 4));
  EXPECT_EQ(Reset(*vm), 0u);
  EXPECT_EQ(vm->Stats().flush.remote_tlb_flush_requests, flushes + 1);
  // The TLB had page 1 writable. The next write must fault nevertheless.
  Write(*vm, kPageSize);
  EXPECT_THAT(Collect(*vm), ElementsAre(DirtyGfn{0, 3}, DirtyGfn{0, 1}));
  EXPECT_EQ(Reset(*vm), 3u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-43
TEST(DirtyRingsTest, AResetGoesThroughTheRingsOfAllVcpus) {
  auto vm = LoggingRingVm(/*vcpus=*/4);
  constexpr int kVcpus[] = {0, 2, 3};  // the ring of vCPU 1 is empty
  for (const int vcpu : kVcpus) {
    Write(*vm, (100 + vcpu) * kPageSize, 1, vcpu);
    Write(*vm, (50 - vcpu) * kPageSize, 1, vcpu);   // in descending order
    Write(*vm, (900 + vcpu) * kPageSize, 1, vcpu);  // in another window
    EXPECT_THAT(Collect(*vm, vcpu), SizeIs(3));
  }
  EXPECT_EQ(Reset(*vm), 9u);
  for (const int vcpu : kVcpus) {
    EXPECT_EQ(RingOf(*vm, vcpu).used(), 0u);
    for (const uint64_t page : {100 + vcpu, 50 - vcpu, 900 + vcpu}) {
      EXPECT_FALSE(IsWritable(*vm, page)) << page;
    }
  }
}

// Covers: DL-43
TEST(DirtyRingsTest, EntriesThatNameNoPageAreFreedAndSkipped) {
  auto vm = LoggingRingVm();
  Write(*vm, 0);
  Write(*vm, kPageSize);
  // User space may write anything into a ring.
  DirtyRing& ring = RingOf(*vm);
  ring.Push({.slot = 99, .offset = 0});
  ring.Push({.slot = 5u << 16, .offset = 0});
  ring.Push({.slot = 0, .offset = kPages});
  ring.Push({.slot = 0, .offset = ~uint64_t{0}});
  Write(*vm, 2 * kPageSize);
  EXPECT_THAT(Collect(*vm), SizeIs(7));
  EXPECT_EQ(Reset(*vm), 7u);
  for (const uint64_t page : {0, 1, 2}) EXPECT_FALSE(IsWritable(*vm, page));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-43
TEST(DirtyRingsTest, AResetLeavesTheNextSlotAlone) {
  auto vm = MakeRingVm({Slot(0, 0, kMiB), Slot(1, kMiB, kMiB)}, kEntries);
  DirtyLogConfig config;
  config.slots = {0};
  ASSERT_TRUE(StartLog(*vm, config, nullptr).ok());
  constexpr uint64_t kLast = kMiB / kPageSize - 1;
  Write(*vm, kMiB);
  Write(*vm, kLast * kPageSize);
  Write(*vm, kMiB + 70 * kPageSize);
  RingOf(*vm).Push({.slot = 0, .offset = kLast + 1});  // in the same window
  RingOf(*vm).Push({.slot = 0, .offset = kLast + 71});
  EXPECT_THAT(Collect(*vm), SizeIs(3));
  EXPECT_EQ(Reset(*vm), 3u);
  EXPECT_FALSE(IsWritable(*vm, kLast));
  EXPECT_TRUE(IsWritable(*vm, kLast + 1)) << "of slot 1, which does not log";
  EXPECT_TRUE(IsWritable(*vm, kLast + 71));
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(DirtyRingsTest, EntriesThatNameNoPageAreInNoEpoch) {
  auto vm = LoggingRingVm();
  DirtyRing& ring = RingOf(*vm);
  Write(*vm, 5 * kPageSize);
  ring.Push({.slot = 99, .offset = 1});
  ring.Push({.slot = 1u << 16, .offset = 2});
  ring.Push({.slot = 0, .offset = kPages});
  ring.Push({.slot = 0, .offset = ~uint64_t{0}});
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(5));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-43
TEST(DirtyRingsTest, AResetThatIsToldToStopReturnsItsCount) {
  auto vm = LoggingRingVm();
  for (uint64_t page = 0; page < 10; ++page) Write(*vm, page * kPageSize);
  EXPECT_THAT(Collect(*vm), SizeIs(10));
  int asked = 0;
  const auto count = ResetDirtyRings(
      vm->state(), [&] { return ++asked > 4; }, nullptr);
  ASSERT_TRUE(count.ok()) << count.status();
  EXPECT_EQ(*count, 4u);
  EXPECT_FALSE(IsWritable(*vm, 3));
  EXPECT_TRUE(IsWritable(*vm, 4));
  EXPECT_EQ(Reset(*vm), 6u) << "the rest is for the next one";
}

TEST(DirtyRingsTest, ASealHarvestsAndAClearResets) {
  auto vm = LoggingRingVm();
  Write(*vm, 5 * kPageSize);
  Write(*vm, 9 * kPageSize);
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(5, 9));
  EXPECT_EQ(RingOf(*vm).used(), 2u) << "collected, not free";
  EXPECT_TRUE(IsWritable(*vm, 5));
  Write(*vm, 11 * kPageSize);
  ClearAll(*vm, epoch, {5, 9});
  EXPECT_FALSE(IsWritable(*vm, 5));
  EXPECT_FALSE(IsWritable(*vm, 9));
  EXPECT_TRUE(IsWritable(*vm, 11));
  EXPECT_EQ(RingOf(*vm).used(), 1u);
  Write(*vm, 5 * kPageSize);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(5, 11));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Clear A has reset the ring, which freed the entry of B's page and protected
// the page, but has not flushed yet. Clear B acknowledges this page. It has
// nothing to reset, but must flush before it returns.
TEST(DirtyRingsTest, Race22AClearFlushesForTheResetOfAnother) {
  auto vm = MakeRingVm({Slot(0, 0, kMiB), Slot(1, kMiB, kMiB)}, kEntries);
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  constexpr uint64_t kPagesOfSlot = kMiB / kPageSize;
  Write(*vm, kPageSize);
  Write(*vm, kMiB + 5 * kPageSize);
  uint64_t epoch = 0;
  ASSERT_THAT(SealAndList(*vm, 1, &epoch), ElementsAre(5));
  const auto clear = [&](uint32_t slot, uint64_t page) {
    EXPECT_TRUE(ClearAndDeliver(*vm, slot, epoch, 0, kPagesOfSlot,
                                MaskOf(kPagesOfSlot, {page}), nullptr)
                    .ok());
  };
  testing::Interleaving threads;
  threads.Add("a", [&] { clear(0, 1); });
  threads.Add("b", [&] { clear(1, 5); });
  threads.RunTo("a", HookPoint::kProtectToFlush);
  EXPECT_EQ(RingOf(*vm).used(), 0u) << "both entries are free";
  threads.RunToEnd("b");
  // From here on slot 1's page is copied. A write either marks the page, or is
  // in the copy.
  Write(*vm, kMiB + 5 * kPageSize, 2);
  EXPECT_THAT(SealAndList(*vm, 1), ElementsAre(5));
  threads.RunToEnd("a");
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Clear A has put the page in flight and protected it, but has not flushed yet.
// Clear B, which may be A's call again, finds the page in flight and nothing to
// reset. It must flush before it returns, too.
TEST(DirtyRingsTest, Race22AClearThatIsRepeatedFlushesForTheFirst) {
  auto vm = LoggingRingVm();
  Write(*vm, 5 * kPageSize);
  uint64_t epoch = 0;
  ASSERT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(5));
  const auto clear = [&] {
    return ClearAndDeliver(*vm, 0, epoch, 0, kPages, MaskOf(kPages, {5}),
                           nullptr);
  };
  testing::Interleaving threads;
  threads.Add("a", [&] { EXPECT_TRUE(clear().ok()); });
  threads.Add("b", [&] {
    const absl::StatusOr<ClearResult> result = clear();
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->cleared_page_count, 0u);
    EXPECT_EQ(result->already_in_flight_page_count, 1u);
  });
  threads.RunTo("a", HookPoint::kProtectToFlush);
  threads.RunToEnd("b");
  Write(*vm, 5 * kPageSize, 2);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(5));
  threads.RunToEnd("a");
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Until a reset flushes, TLBs allow writes that the tables forbid. An audit at
// that moment would find this (INV-6), so the audit waits for the flush.
TEST(DirtyRingsTest, Race22AnAuditWaitsForTheFlushOfAReset) {
  auto vm = LoggingRingVm();
  Write(*vm, 5 * kPageSize);
  uint64_t epoch = 0;
  ASSERT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(5));
  testing::Interleaving threads;
  std::string findings = "none yet";
  threads.Add("clear", [&] { ClearAll(*vm, epoch, {5}); });
  threads.Add("audit", [&] { findings = AuditFindings(*vm); });
  threads.RunTo("clear", HookPoint::kProtectToFlush);
  EXPECT_FALSE(IsWritable(*vm, 5));
  threads.Start("audit");
  while (!vm->state().unflushed_resets.IsAwaited() &&
         !threads.HasEnded("audit")) {
    std::this_thread::yield();
  }
  threads.RunToEnd("clear");
  threads.WaitForEnd("audit");
  EXPECT_EQ(findings, "");
}

TEST(DirtyRingsTest, APeekShowsWhatIsStillInTheRings) {
  auto vm = LoggingRingVm(2);
  Write(*vm, 5 * kPageSize, 1, 0);
  Write(*vm, 9 * kPageSize, 1, 1);
  std::vector<uint64_t> words(kPages / 64);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(ReadLog(*vm, 0, 0, 0, absl::MakeSpan(words)).ok());
    EXPECT_THAT(PagesOf(words), ElementsAre(5, 9));
  }
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(5, 9));
}

TEST(DirtyRingsTest, WhatADeadClientSealedIsThereForTheNext) {
  auto vm = LoggingRingVm();
  Write(*vm, 5 * kPageSize);
  SealAndList(*vm, 0);  // this client never clears
  Write(*vm, 70 * kPageSize);
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(5, 70));
  // A clear of page 70 resets the whole ring. Page 5 stays in its epoch.
  ClearAll(*vm, epoch, {70});
  EXPECT_EQ(RingOf(*vm).used(), 0u);
  EXPECT_FALSE(IsWritable(*vm, 5));
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(5));
  Write(*vm, 5 * kPageSize);
  ClearAll(*vm, epoch, {5});
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(5)) << "written again";
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-45
TEST(DirtyRingsTest, ACopyAfterTheResetHasEveryWriteOrALaterRoundHas) {
  auto vm = LoggingRingVm();
  const auto contents = [&] {
    uint64_t word = 0;
    EXPECT_TRUE(
        vm->ReadMemory(Gpa(0),
                       absl::MakeSpan(reinterpret_cast<std::byte*>(&word), 8))
            .ok());
    return word;
  };
  Write(*vm, 0, 1);
  EXPECT_THAT(Collect(*vm), SizeIs(1));
  const uint64_t too_early = contents();
  Write(*vm, 0, 2);  // the page is still writable, so it gets no entry
  EXPECT_EQ(Reset(*vm), 1u);
  EXPECT_THAT(Collect(*vm), IsEmpty());
  EXPECT_EQ(too_early, 1u) << "a copy before the reset has lost the write";
  EXPECT_EQ(contents(), 2u) << "one after it has not";
  Write(*vm, 0, 3);
  EXPECT_THAT(Collect(*vm), ElementsAre(DirtyGfn{0, 0}));
}

// A companion is chosen together with rings when the VM is made, and so before
// its first slot.
// Covers: DL-46
TEST(DirtyRingsTest, ACompanionBitmapWithoutRingsIsRefused) {
  constexpr auto kNo = VmConfig::CompanionBitmap::kNo;
  constexpr auto kYes = VmConfig::CompanionBitmap::kYes;
  const absl::Status refused = CreateError(0, kYes);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailOf(refused).kvm_errno, EINVAL);
  EXPECT_EQ(DetailOf(refused).reason, Reason::kInvalidMmuOption);
  EXPECT_EQ(DetailOf(refused).field, "companion_bitmap");
  EXPECT_TRUE(CreateError(0, kNo).ok()) << "without either";
  EXPECT_TRUE(CreateError(kEntries, kYes).ok()) << "with both";
}

bool HasBitmap(Vm& vm, uint32_t slot) {
  RcuReadGuard rcu;
  return vm.state().slots.Active(0).FindById(slot)->dirty_bitmap != nullptr;
}

// Writes a word that is 0 to slot 0, while no vCPU runs.
void WriteWithoutVcpu(Vm& vm, uint64_t gpa) {
  GuestMemoryAccess memory(vm.state().slots, /*as_id=*/0, /*ring=*/nullptr);
  EXPECT_EQ(memory.CompareExchange(Gpa(gpa), WordSize::k8, 0, 7),
            GuestWordResult::kDone);
}

// Covers: DL-46, SLOT-53
TEST(DirtyRingsTest, TheCompanionBitmapHasWritesThatNoVcpuMade) {
  VmConfig config;
  config.dirty_ring_entries = kEntries;
  config.companion_bitmap = VmConfig::CompanionBitmap::kYes;
  config.memslots = {Slot(0, 0, kPages * kPageSize), Slot(1, 16 * kMiB, kMiB)};
  const auto created = MakeVmFrom(config);
  Vm& vm = *created;
  EXPECT_FALSE(HasBitmap(vm, 0)) << "does not log yet";
  DirtyLogConfig log;
  log.slots = {0};
  ASSERT_TRUE(StartLog(vm, log, nullptr).ok());
  EXPECT_TRUE(HasBitmap(vm, 0));
  EXPECT_FALSE(HasBitmap(vm, 1)) << "does not log";
  ASSERT_TRUE(vm.SetMemslot(Slot(2, 32 * kMiB, kMiB)).ok());
  EXPECT_TRUE(HasBitmap(vm, 2)) << "joins the log";

  Write(vm, 3 * kPageSize);
  EXPECT_EQ(RingOf(vm).used(), 1u);
  WriteWithoutVcpu(vm, 8 * kPageSize);
  EXPECT_EQ(RingOf(vm).used(), 1u) << "belongs to a vCPU that does not run";
  {
    RcuReadGuard rcu;
    const DirtyBitmap& companion =
        *vm.state().slots.Active(0).FindById(0)->dirty_bitmap;
    EXPECT_FALSE(companion.Test(3)) << "that one is in the ring";
    EXPECT_TRUE(companion.Test(8));
  }
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(vm, 0, &epoch), ElementsAre(3, 8));
  ClearAll(vm, epoch, {3, 8});
  EXPECT_THAT(SealAndList(vm, 0), IsEmpty()) << "the seal took the mark";
  WriteWithoutVcpu(vm, 8 * kPageSize + 8);
  EXPECT_THAT(SealAndList(vm, 0), ElementsAre(8));
}

// Covers: DL-46
TEST(DirtyRingsTest, WithoutACompanionOnlyWritesOfVcpusAreLogged) {
  auto vm = LoggingRingVm();
  EXPECT_FALSE(HasBitmap(*vm, 0));
  WriteWithoutVcpu(*vm, 8 * kPageSize);
  EXPECT_EQ(RingOf(*vm).used(), 0u);
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());
  Write(*vm, 3 * kPageSize);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(3));
}

TEST(DirtyRingsTest, StoppingTheLogFreesTheRingsAndCountsTheirPages) {
  auto vm = LoggingRingVm();
  while (Write(*vm, RingOf(*vm).used() * kPageSize) == AccessOutcome::kDone) {
  }
  const uint64_t written = RingOf(*vm).used();
  const auto stopped =
      StopLog(*vm, RecoverOnStop::kYes, Undelivered::kDiscard, nullptr);
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  EXPECT_EQ(stopped->discarded, UndeliveredCounts{.open = written});
  EXPECT_EQ(RingOf(*vm).used(), 0u);
  Touch(*vm, GfnRange::Of(Gfn(0), kPages));
  EXPECT_EQ(RingOf(*vm).used(), 0u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(DirtyRingsTest, EntriesOfADeletedSlotDoNotComeBackWithItsId) {
  auto vm = LoggingRingVm();
  Write(*vm, 5 * kPageSize);
  EXPECT_EQ(*vm->DeleteMemslot(0, Undelivered::kDiscard),
            UndeliveredCounts{.open = 1});
  EXPECT_EQ(RingOf(*vm).used(), 0u);
  ASSERT_TRUE(StopLog(*vm).ok());
  ASSERT_TRUE(vm->SetMemslot(Slot(0, 0, kPages * kPageSize)).ok());
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());
}

// Writes to one page after the other, again and again.
class Sweep : public AccessSource {
 public:
  explicit Sweep(uint64_t count) : left_(count) {}
  bool Next(GuestAccess* access) override {
    if (left_ == 0) return false;
    --left_;
    *access = {page_++ % kPages * kPageSize, 8, AccessKind::kWrite};
    return true;
  }

 private:
  uint64_t left_;
  uint64_t page_ = 0;
};

WorkloadOptions SweepOf(uint64_t count) {
  WorkloadOptions options;
  options.sources.push_back(std::make_unique<Sweep>(count));
  return options;
}

void WaitUntilFull(const Vm& vm) {
  while (vm.VcpuStats()[0].ring_full_exits == 0) std::this_thread::yield();
}

// Covers: DL-42
TEST(DirtyRingsTest, AWorkloadWaitsForRoomAndGoesOnWithTheSameAccess) {
  auto vm = LoggingRingVm();
  ASSERT_TRUE(vm->StartWorkload(SweepOf(3 * kPages)).ok());
  WaitUntilFull(*vm);
  EXPECT_FALSE(vm->WaitWorkload(absl::Milliseconds(20)));
  EXPECT_EQ(vm->VcpuStats()[0].ring_full_exits, 1u) << "it waits, not polls";
  EXPECT_EQ(RingOf(*vm).used(), kSoftLimit);
  uint64_t rounds = 0;
  while (!vm->WaitWorkload(absl::ZeroDuration())) {
    uint64_t epoch = 0;
    const std::vector<uint64_t> pages = SealAndList(*vm, 0, &epoch);
    EXPECT_LE(pages.size(), uint64_t{kEntries});
    ClearAll(*vm, epoch, pages);
    ++rounds;
  }
  EXPECT_GE(rounds, 3 * kPages / kEntries);
  const VcpuStatsSnapshot stats = vm->Workload()->stats;
  EXPECT_EQ(stats.writes, 3 * kPages) << "none twice";
  EXPECT_GT(stats.stall_nanos[static_cast<int>(StallCause::kRingFull)],
            10'000'000u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(DirtyRingsTest, AWaitForRoomIsSeenWhileItLasts) {
  auto vm = LoggingRingVm();
  EXPECT_EQ(vm->VcpusWaitingForRing(), 0);
  EXPECT_FALSE(vm->WaitingForRingSince().has_value());
  const MonotonicTime start = MonotonicTime::Now();
  ASSERT_TRUE(vm->StartWorkload(SweepOf(kPages)).ok());
  // Nobody clears, so the wait does not end. A counter that is booked only at
  // the end of the wait would never show it.
  while (vm->VcpusWaitingForRing() == 0) std::this_thread::yield();
  const auto stalled = [&vm] {
    return vm->Stats()
        .vcpus.stall_nanos[static_cast<int>(StallCause::kRingFull)];
  };
  while (stalled() == 0) std::this_thread::yield();
  const uint64_t before = stalled();
  while (stalled() == before) std::this_thread::yield();
  const absl::optional<MonotonicTime> since = vm->WaitingForRingSince();
  ASSERT_TRUE(since.has_value());
  EXPECT_GT(*since, start);
  EXPECT_EQ(vm->WaitingForRingSince(), since);
  EXPECT_EQ(vm->Stats().vcpus_waiting_for_ring, 1u);
  EXPECT_FALSE(vm->WaitWorkload(absl::ZeroDuration()));
  vm->StopWorkload();
  EXPECT_EQ(vm->VcpusWaitingForRing(), 0);
  EXPECT_FALSE(vm->WaitingForRingSince().has_value());
  EXPECT_EQ(vm->Stats().vcpus_waiting_for_ring, 0u);
}

TEST(DirtyRingsTest, AVcpuThatWaitsForRoomCanBePausedAndStopped) {
  auto vm = LoggingRingVm();
  ASSERT_TRUE(vm->StartWorkload(SweepOf(kPages)).ok());
  while (vm->VcpusWaitingForRing() == 0) std::this_thread::yield();
  vm->PauseVcpus();
  // The vCPU now stands still because it is paused, not because of its ring.
  EXPECT_EQ(vm->VcpusWaitingForRing(), 0);
  const auto stalled = [&vm] {
    return vm->VcpuStats()[0]
        .stall_nanos[static_cast<int>(StallCause::kRingFull)];
  };
  const uint64_t before = stalled();
  EXPECT_EQ(AuditFindings(*vm), "");
  EXPECT_EQ(stalled(), before);
  vm->ResumeVcpus();
  EXPECT_FALSE(vm->WaitWorkload(absl::Milliseconds(5)));
  vm->StopWorkload();
  EXPECT_EQ(vm->Workload()->state, WorkloadProgress::State::kStopped);

  WorkloadOptions timed = SweepOf(kPages);
  timed.max_duration = absl::Milliseconds(20);
  ASSERT_TRUE(vm->StartWorkload(std::move(timed)).ok());
  EXPECT_TRUE(vm->WaitWorkload(kLong)) << "its time is over";
}

// Guests with their own tables are included, because they wait for room at
// another place.
TEST(DirtyRingsTest, ATimeLimitBeginsWhenThePausedVcpusGoOn) {
  constexpr absl::Duration kLimit = absl::Milliseconds(200);
  for (const MmuMode mmu : {MmuMode::kTdp, MmuMode::kShadow}) {
    VmConfig config;
    config.mmu = mmu;
    config.format = EntryFormat::kNpt;
    config.dirty_ring_entries = kEntries;
    config.memslots = {Slot(0, 0, 32 * kMiB)};
    auto vm = testing::MakeVmFrom(config);
    ASSERT_TRUE(testing::StartLog(*vm).ok());
    vm->PauseVcpus();
    WorkloadOptions timed = SweepOf(32 * kMiB / kPageSize);
    timed.max_duration = kLimit;
    ASSERT_TRUE(vm->StartWorkload(std::move(timed)).ok());
    absl::SleepFor(2 * kLimit);
    const MonotonicTime begin = MonotonicTime::Now();
    vm->ResumeVcpus();
    ASSERT_TRUE(vm->WaitWorkload(kLong));
    EXPECT_GE(MonotonicTime::Now() - begin, kLimit);
    EXPECT_GT(vm->VcpuStats()[0].ring_full_exits, 0u);
  }
}

TEST(DirtyRingsTest, StoppingTheLogLetsAWaitingVcpuGoOn) {
  auto vm = LoggingRingVm();
  ASSERT_TRUE(vm->StartWorkload(SweepOf(2 * kPages)).ok());
  WaitUntilFull(*vm);
  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr).ok());
  EXPECT_TRUE(vm->WaitWorkload(kLong));
  EXPECT_EQ(vm->Workload()->stats.writes, 2 * kPages);
}

TEST(DirtyRingsTest, TheMetricsTellHowFullTheRingsAre) {
  auto vm = LoggingRingVm(2);
  EXPECT_EQ(vm->Stats().dirty_ring_entries, 2 * kEntries);
  Write(*vm, 0, 1, 0);
  Write(*vm, kPageSize, 1, 1);
  EXPECT_EQ(vm->Stats().dirty_ring_used_entries, 2u);
  uint64_t page = 2;
  while (Write(*vm, page++ * kPageSize) == AccessOutcome::kDone) {
  }
  EXPECT_EQ(vm->Stats().vcpus.ring_full_exits, 1u);
}

}  // namespace
}  // namespace mmu
