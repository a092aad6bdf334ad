// Mapping a page on a fault, and the fast page fault.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

using ::mmu::testing::AllMappings;
using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::EntryOf;
using ::mmu::testing::FaultOn;
using ::mmu::testing::FlushesOf;
using ::mmu::testing::k2MPages;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::LevelOf;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::MapInto;
using ::mmu::testing::Mapping;
using ::mmu::testing::MaskOf;
using ::mmu::testing::MeetingOfTwo;
using ::mmu::testing::Read;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::SlotOf;
using ::mmu::testing::SpteOf;
using ::mmu::testing::StartLog;
using ::mmu::testing::StopLog;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::mmu::testing::WriteProtect;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

uint64_t FaultLocks(const Vm& vm) {
  return vm.Stats().lock.at(LockMode::kRead, LockOp::kFault).acquisitions;
}

TdpRoot& RootOf(Vm& vm) {
  RcuReadGuard rcu;
  return *vm.state().tdp.roots().FirstRcu(RootFilter::kValid, 0);
}

FaultResult FastFault(Vm& vm, PageFault& fault) {
  return vm.state().tdp.FastFault(RootOf(vm), fault);
}
FaultResult FastFault(Vm& vm, uint64_t gfn,
                      AccessKind kind = AccessKind::kWrite) {
  PageFault fault = FaultOn(vm, Gfn(gfn), kind);
  return FastFault(vm, fault);
}

FaultResult Map(Vm& vm, uint64_t gfn, AccessKind kind, TableCache& cache) {
  PageFault fault = FaultOn(vm, Gfn(gfn), kind);
  return MapInto(vm, RootOf(vm), fault, cache);
}

// --- The map path ---

// Covers: TDP-41, TDP-43, SPTE-01
TEST(TdpFaultTest, TheFirstSmallPageNeedsATableForEachLevelBelowTheRoot) {
  for (const int levels : {4, 5}) {
    VmConfig config;
    config.root_levels = levels;
    config.memslots = {Slot(0, 0, kMiB)};
    const auto created = MakeVmFrom(config);
    Vm& vm = *created;
    TableCache cache(vm.state().pool);
    auto root = vm.state().tdp.LoadRoot(0, cache);
    ASSERT_TRUE(root.ok());
    EXPECT_EQ(vm.Stats().table_pages, 0u) << "the root is not counted";
    ASSERT_TRUE(cache.TopUp(TdpMmu::kTablesPerFault).ok());
    const int spare = cache.count();
    const uint64_t out = vm.state().pool.tables_out();
    EXPECT_EQ(Map(vm, 7, AccessKind::kWrite, cache), FaultResult::kFixed);
    EXPECT_EQ(vm.Stats().table_pages, static_cast<uint64_t>(levels - 1));
    EXPECT_EQ(cache.count(), spare - (levels - 1)) << "all from the cache";
    EXPECT_EQ(vm.state().pool.tables_out(), out) << "nothing was allocated";
    EXPECT_THAT(AllMappings(vm.state()),
                ElementsAre(Mapping{7, Level::k4K, "rwad"}));
    for (uint64_t gfn = 0; gfn < k2MPages; ++gfn) {
      if (gfn == 7) continue;
      ASSERT_EQ(SpteOf(vm.state(), Gfn(gfn)), Spte::Initial()) << gfn;
    }
    // The neighbour is in the same table, so its fault needs no new table.
    EXPECT_EQ(Map(vm, 8, AccessKind::kRead, cache), FaultResult::kFixed);
    EXPECT_EQ(cache.count(), spare - (levels - 1));
    root->reset();
    EXPECT_EQ(AuditFindings(vm), "");
  }
}

// Covers: TDP-41, TRM-03
TEST(TdpFaultTest, TheWalkStopsAtTheLevelThatSlotAndHostAllow) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M),
                    Slot(1, 4 * kGiB, 2 * kGiB, Level::k1G)});
  Write(*vm, 3 * kMiB);
  Write(*vm, 5 * kGiB + 5);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{512, Level::k2M, "rwad"},
                          Mapping{5 * kGiB / kPageSize, Level::k1G, "rwad"}));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-29
TEST(TdpFaultTest, AFaultThatMeetsAFrozenEntryRetriesWithoutATable) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Read(*vm, 0);
  TableCache cache(vm->state().pool);
  ASSERT_TRUE(cache.TopUp(TdpMmu::kTablesPerFault).ok());
  const int spare = cache.count();
  // One frozen entry on the way to the leaf, and one in place of the leaf.
  for (SpteSlot* slot : {&EntryOf(*vm, Gfn(512), Level::k2M),
                         &EntryOf(*vm, Gfn(5), Level::k4K)}) {
    slot->Store(Spte::Frozen());
    const uint64_t gfn = slot == &EntryOf(*vm, Gfn(5), Level::k4K) ? 5 : 600;
    EXPECT_EQ(Map(*vm, gfn, AccessKind::kWrite, cache), FaultResult::kRetry);
    EXPECT_EQ(cache.count(), spare);
    EXPECT_EQ(slot->Load(), Spte::Frozen());
    slot->Store(Spte::Initial());
    EXPECT_EQ(Map(*vm, gfn, AccessKind::kWrite, cache), FaultResult::kFixed);
    ASSERT_TRUE(cache.TopUp(spare).ok());
  }
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-44
TEST(TdpFaultTest, AHugeLeafInPlaceOfATableFlushesItsRangeOnce) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  Touch(*vm, GfnRange::Of(Gfn(0), 512));
  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr).ok());
  EXPECT_EQ(vm->Stats().pages_4k, 512u);
  const TlbEntry* cached = vm->state().vcpus[0]->tlb().Lookup(PageNumber(7));
  ASSERT_NE(cached, nullptr);
  EXPECT_EQ(cached->level, Level::k4K);

  const uint64_t flushes = FlushesOf(*vm);
  const auto by_range = [&] {
    return vm->Stats().flush.Flushes(FlushScope::kRange, FlushReason::kRecover);
  };
  const uint64_t ranges = by_range();
  TableCache cache(vm->state().pool);
  EXPECT_EQ(Map(*vm, 7, AccessKind::kWrite, cache), FaultResult::kFixed);
  EXPECT_EQ(FlushesOf(*vm), flushes + 1);
  EXPECT_EQ(by_range(), ranges + 1);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  EXPECT_EQ(vm->Stats().pages_2m, 1u);
  EXPECT_EQ(vm->Stats().table_pages, 2u);
  // The stale small translations are not used again.
  Read(*vm, 7 * kPageSize);
  EXPECT_EQ(vm->state().vcpus[0]->tlb().Lookup(PageNumber(7))->level,
            Level::k2M);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-44, PF-40
TEST(TdpFaultTest, AFaultOnWhatIsAllowedAlreadyIsSpuriousAndChangesNothing) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Write(*vm, 0);
  TableCache cache(vm->state().pool);
  SpteSlot& slot = EntryOf(*vm, Gfn(0), Level::k4K);
  const SpteFormat& format = vm->state().tdp.format();
  for (const AccessKind kind :
       {AccessKind::kRead, AccessKind::kWrite, AccessKind::kExec}) {
    // The fault does not set the Accessed bit again, either.
    const Spte old = format.WithoutAccessed(slot.Load());
    slot.Store(old);
    EXPECT_EQ(Map(*vm, 0, kind, cache), FaultResult::kSpurious);
    EXPECT_EQ(slot.Load(), old);
  }
  EXPECT_EQ(vm->Stats().pages_4k, 1u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-44
TEST(TdpFaultTest, WideningALeafNeedsNoFlush) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Write(*vm, 0);
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
    ASSERT_TRUE(vm->state().tdp.WriteProtectGfn(lock, 0, Gfn(0), Level::k4K));
  }
  const uint64_t flushes = FlushesOf(*vm);
  TableCache cache(vm->state().pool);
  EXPECT_EQ(Map(*vm, 0, AccessKind::kWrite, cache), FaultResult::kFixed);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k4K, "rwad"}));
  EXPECT_EQ(FlushesOf(*vm), flushes);
}

// Covers: SPTE-16, DL-18
TEST(TdpFaultTest, AReadOfALoggedPageMapsItWritableAndMarksItOnce) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  TableCache cache(vm->state().pool);
  auto root = vm->state().tdp.LoadRoot(0, cache);
  PageFault fault = FaultOn(*vm, Gfn(9), AccessKind::kRead);
  EXPECT_EQ(MapInto(*vm, **root, fault, cache), FaultResult::kFixed);
  // The page is marked although no write has happened.
  EXPECT_EQ(fault.dirtied_pages, 1);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{9, Level::k4K, "rwad"}));
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(9));
  ASSERT_TRUE(
      ClearAndDeliver(*vm, 0, epoch, 0, 1024, MaskOf(1024, {9}), nullptr).ok());
  // The page is write-protected now. Reads do not mark it again.
  Read(*vm, 9 * kPageSize);
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{9, Level::k4K, "rmad"}));
  root->reset();
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-18
TEST(TdpFaultTest, ReadsOfPagesThatWereSplitAheadNeverMark) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 512));
  DirtyLogConfig config;
  config.split = SplitPolicy::kEager;
  ASSERT_TRUE(StartLog(*vm, config, nullptr).ok());
  Touch(*vm, GfnRange::Of(Gfn(0), 512), AccessKind::kRead);
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-08, TDP-41
TEST(TdpFaultTest, AWriteToAProtectedHugePageSplitsItAndKeepsTheSiblings) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 1024));
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k2M, "rmad"},
                          Mapping{512, Level::k2M, "rmad"}));
  const uint64_t flushes = FlushesOf(*vm);
  Write(*vm, 5 * kPageSize);
  std::vector<Mapping> expected;
  for (uint64_t gfn = 0; gfn < 512; ++gfn) {
    expected.push_back({gfn, Level::k4K, gfn == 5 ? "rwad" : "rmad"});
  }
  expected.push_back({512, Level::k2M, "rmad"});
  EXPECT_EQ(AllMappings(vm->state()), expected);
  EXPECT_EQ(FlushesOf(*vm), flushes);
  const uint64_t faults = vm->VcpuStats()[0].pf_taken;
  vm->state().vcpus[0]->tlb().FlushAll();
  Touch(*vm, GfnRange::Of(Gfn(0), 512), AccessKind::kRead);
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, faults) << "siblings stayed mapped";
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(5));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// --- The fast page fault ---

// Covers: PF-10
TEST(FastFaultTest, OnlyWritesToPresentEntriesAreTried) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Write(*vm, 0);
  WriteProtect(*vm, GfnRange::Of(Gfn(0), 1));
  const Spte before = SpteOf(vm->state(), Gfn(0));
  EXPECT_EQ(FastFault(*vm, 0, AccessKind::kRead), FaultResult::kInvalid);
  EXPECT_EQ(FastFault(*vm, 0, AccessKind::kExec), FaultResult::kInvalid);
  PageFault absent = FaultOn(*vm, Gfn(0), AccessKind::kWrite);
  absent.present = false;
  EXPECT_EQ(FastFault(*vm, absent), FaultResult::kInvalid);
  EXPECT_EQ(SpteOf(vm->state(), Gfn(0)), before);
  EXPECT_EQ(FastFault(*vm, 0, AccessKind::kWrite), FaultResult::kFixed);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: PF-12
TEST(FastFaultTest, ItNeedsNoLock) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Write(*vm, 0);
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  const uint64_t locks = FaultLocks(*vm);
  MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kZap);
  EXPECT_EQ(Write(*vm, 0), AccessOutcome::kDone)
      << "while somebody has mmu_lock for write";
  EXPECT_EQ(FaultLocks(*vm), locks);
}

// Covers: PF-12
TEST(FastFaultTest, TablesAreNotFreedUnderIt) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  std::atomic<bool> stop{false};
  // Splits add tables and recoveries remove them while the fast fault walks.
  Write(*vm, 0);
  std::thread faulter([&] {
    PageFault fault = FaultOn(*vm, Gfn(3), AccessKind::kWrite);
    while (!stop.load()) FastFault(*vm, fault);
  });
  for (int i = 0; i < 300; ++i) {
    testing::Split(*vm, GfnRange::Of(Gfn(0), 512));
    WriteProtect(*vm, GfnRange::Of(Gfn(0), 512));
    testing::Recover(*vm, GfnRange::Of(Gfn(0), 512));
  }
  stop.store(true);
  faulter.join();
  vm->state().tlb.Request(kTlbFlush);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: PF-12
TEST(FastFaultTest, ATableThatGoesUnderItIsFreedAfterIt) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB, Level::k2M)});
  const GfnRange all = GfnRange::Of(Gfn(0), k2MPages);
  Write(*vm, 0);
  testing::Split(*vm, all);
  WriteProtect(*vm, all);
  RcuBarrier();
  const uint64_t out = vm->state().pool.tables_out();
  std::atomic<bool> freed{false};
  std::thread grace_period;
  PageFault fault = FaultOn(*vm, Gfn(3), AccessKind::kWrite);
  {
    testing::LockTrace trace([&](const testing::LockTrace::Event& event) {
      if (event.point != HookPoint::kFastFaultToExchange ||
          grace_period.joinable()) {
        return;
      }
      std::thread([&] { testing::Recover(*vm, all); }).join();
      grace_period = std::thread([&] {
        RcuBarrier();
        freed = true;
      });
      absl::SleepFor(absl::Milliseconds(50));
      EXPECT_FALSE(freed);
      EXPECT_EQ(vm->state().pool.tables_out(), out);
    });
    FastFault(*vm, fault);
  }
  ASSERT_TRUE(grace_period.joinable());
  grace_period.join();
  EXPECT_EQ(vm->state().pool.tables_out(), out - 1);
}

// Covers: PF-13
TEST(FastFaultTest, WithoutALeafTheSlowPathDecides) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Write(*vm, 0);
  EXPECT_EQ(FastFault(*vm, 3), FaultResult::kInvalid) << "an empty entry";
  EXPECT_EQ(FastFault(*vm, 600), FaultResult::kInvalid) << "no table";
  EXPECT_EQ(vm->Stats().pages_4k, 1u);
}

// Covers: PF-13
TEST(FastFaultTest, WhatIsAllowedAlreadyIsSpurious) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Write(*vm, 0);
  const Spte before = SpteOf(vm->state(), Gfn(0));
  EXPECT_EQ(FastFault(*vm, 0), FaultResult::kSpurious);
  EXPECT_EQ(SpteOf(vm->state(), Gfn(0)), before);
}

// Covers: PF-13
TEST(FastFaultTest, AHugePageIsMadeWritableOnlyWhereNobodyLogs) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  WriteProtect(*vm, GfnRange::Of(Gfn(0), 512));
  EXPECT_EQ(FastFault(*vm, 3), FaultResult::kFixed);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k2M, "rwad"}));
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  EXPECT_EQ(FastFault(*vm, 3), FaultResult::kInvalid)
      << "only one page of it would be marked";
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k2M, "rmad"}));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: PF-15, SPTE-35
TEST(FastFaultTest, GivingWriteBackMarksThePageAndLeavesDToTheProcessor) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Write(*vm, 5 * kPageSize);
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  {
    MmuReadLocked lock(vm->state().mmu_lock, LockOp::kEnable);
    vm->state().tdp.ClearDirty(lock, 0, GfnRange::Of(Gfn(5), 1), nullptr);
  }
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{5, Level::k4K, "rma"}));
  PageFault fault = FaultOn(*vm, Gfn(5), AccessKind::kWrite);
  EXPECT_EQ(FastFault(*vm, fault), FaultResult::kFixed);
  EXPECT_EQ(fault.dirtied_pages, 1);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{5, Level::k4K, "rwa"}))
      << "D is still clear";
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(5));
  Write(*vm, 5 * kPageSize);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{5, Level::k4K, "rwad"}));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: PF-16, SPTE-35, TDP-56
TEST(FastFaultTest, ItNeverRepairsWhatLostMmuWritable) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Write(*vm, 0);
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
    EXPECT_TRUE(vm->state().tdp.WriteProtectGfn(lock, 0, Gfn(0), Level::k4K));
  }
  const Spte before = SpteOf(vm->state(), Gfn(0));
  EXPECT_EQ(FastFault(*vm, 0), FaultResult::kInvalid);
  EXPECT_EQ(SpteOf(vm->state(), Gfn(0)), before);
  // The slow path makes the page writable, under the lock.
  vm->state().vcpus[0]->tlb().FlushAll();
  const uint64_t locks = FaultLocks(*vm);
  const uint64_t fast = vm->VcpuStats()[0].pf_fast;
  EXPECT_EQ(Write(*vm, 0), AccessOutcome::kDone);
  EXPECT_EQ(FaultLocks(*vm), locks + 1);
  EXPECT_EQ(vm->VcpuStats()[0].pf_fast, fast);
}

// Covers: PF-16
TEST(FastFaultTest, ItNeverMakesAPageWritableThatTheHostForbids) {
  MemslotConfig readonly = Slot(0, 0, kMiB);
  readonly.mode = MemslotConfig::Mode::kReadOnly;
  auto vm = MakeVm({readonly});
  Read(*vm, 0);
  EXPECT_EQ(FastFault(*vm, 0), FaultResult::kInvalid);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k4K, "ra"}));
}

// Covers: PF-17, PF-18
TEST(FastFaultTest, ItIsCountedAsFastAndByItsResultAndFlushesNobody) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)}, 2);
  Touch(*vm, GfnRange::Of(Gfn(0), 2));
  Touch(*vm, GfnRange::Of(Gfn(0), 2), AccessKind::kRead, 1);
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  // vCPU 1 has the write-protected entry in its TLB; vCPU 0 makes the SPTE
  // writable.
  Read(*vm, 0, 1);
  const uint64_t flushes = FlushesOf(*vm);
  const VcpuStatsSnapshot before0 = vm->VcpuStats()[0];
  Write(*vm, 0, 1, 0);
  const VcpuStatsSnapshot since0 = vm->VcpuStats()[0].Since(before0);
  EXPECT_EQ(since0.pf_taken, 1u);
  EXPECT_EQ(since0.pf_fast, 1u);
  EXPECT_EQ(since0.pf_fixed, 1u);
  EXPECT_EQ(since0.pf_spurious, 0u);
  EXPECT_EQ(since0.dirty_pages, 1u);
  EXPECT_EQ(vm->state().vcpus[1]->tlb().Lookup(PageNumber(0))->writable, false)
      << "stale, and harmless";
  // The stale entry costs vCPU 1 a walk, which finds the entry writable.
  const VcpuStatsSnapshot before1 = vm->VcpuStats()[1];
  Write(*vm, 0, 2, 1);
  EXPECT_EQ(vm->VcpuStats()[1].Since(before1).pf_taken, 0u);
  EXPECT_EQ(FlushesOf(*vm), flushes);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The fault found no slot. A slot was added since, and a page of it was mapped.
// Covers: PF-24
TEST(TdpFaultTest, AFaultThatFoundNoSlotReplacesNoMapping) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  Write(*vm, 0);
  const Spte mapped = SpteOf(vm->state(), Gfn(0));
  TableCache cache(vm->state().pool);
  PageFault fault;
  fault.gfn = Gfn(0);
  fault.kind = AccessKind::kWrite;
  fault.mmio = vm->state().mmio.Make(fault.gfn, /*generation=*/0);
  EXPECT_EQ(MapInto(*vm, RootOf(*vm), fault, cache), FaultResult::kRetry);
  EXPECT_EQ(SpteOf(vm->state(), Gfn(0)), mapped);
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu
