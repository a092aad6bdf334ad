// Ways of making entries non-present.

#include <array>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/memory/lpage_info.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tdp/tdp_mmu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/tlb/vcpu_gate.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

using ::mmu::testing::AllMappings;
using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::EntryIn;
using ::mmu::testing::FlushesOf;
using ::mmu::testing::k2MPages;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::LockTrace;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Mapping;
using ::mmu::testing::MaskOf;
using ::mmu::testing::Read;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::StartLog;
using ::mmu::testing::Touch;
using ::mmu::testing::Waiter;
using ::mmu::testing::Write;
using ::mmu::testing::YieldsOf;
using ::mmu::testing::ZapLeafs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Covers: TDP-37
TEST(TdpZapTest, ZappingOnePageOfAHugeLeafTakesAllOfItWithOneFlush) {
  auto vm = MakeVm({Slot(0, 0, 6 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 3 * 512));
  const uint64_t flushes = FlushesOf(*vm);
  const uint64_t tables = vm->Stats().table_pages;
  MmuCost cost;
  EXPECT_TRUE(
      ZapLeafs(*vm, GfnRange::Of(Gfn(700), 1), RootFilter::kValid, &cost));
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k2M, "rwad"},
                          Mapping{1024, Level::k2M, "rwad"}));
  EXPECT_EQ(FlushesOf(*vm), flushes + 1);
  EXPECT_EQ(cost.tlb_flush_count, 1);
  EXPECT_EQ(vm->Stats().table_pages, tables) << "tables stay";
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-37
TEST(TdpZapTest, ZappingWhereNothingIsMappedFlushesNothing) {
  auto vm = MakeVm({Slot(0, 0, 6 * kMiB)});
  Write(*vm, 0);
  const uint64_t flushes = FlushesOf(*vm);
  EXPECT_FALSE(ZapLeafs(*vm, GfnRange::Of(Gfn(1), 1000)));
  EXPECT_EQ(FlushesOf(*vm), flushes);
  EXPECT_TRUE(ZapLeafs(*vm, GfnRange::Of(Gfn(0), 1)));
  EXPECT_FALSE(ZapLeafs(*vm, GfnRange::Of(Gfn(0), 1))) << "gone already";
  EXPECT_EQ(FlushesOf(*vm), flushes + 1);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-37, TDP-15
TEST(TdpZapTest, AZapOfEveryFrameThereCouldBeEnds) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB), Slot(1, 4 * kGiB, kGiB, Level::k1G,
                                               BackingKind::kMetadataOnly)});
  Touch(*vm, GfnRange::Of(Gfn(0), 100));
  Read(*vm, 4 * kGiB);
  EXPECT_TRUE(ZapLeafs(*vm, {Gfn(0), Gfn(~uint64_t{0})}));
  EXPECT_THAT(AllMappings(vm->state()), IsEmpty());
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  EXPECT_EQ(vm->Stats().pages_1g, 0u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-37, TLB-12
TEST(TdpZapTest, AfterAZapTheVcpuDoesNotUseWhatItHadCached) {
  auto vm = MakeVm({Slot(0, 0, 6 * kMiB)});
  Write(*vm, 0);
  Vcpu& vcpu = *vm->state().vcpus[0];
  ASSERT_NE(vcpu.tlb().Lookup(PageNumber(0)), nullptr);
  ZapLeafs(*vm, GfnRange::Of(Gfn(0), 1));
  const uint64_t faults = vm->VcpuStats()[0].pf_taken;
  Read(*vm, 0);
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, faults + 1);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-24, TDP-21, TLB-09
TEST(TdpZapTest, AZapThatYieldsFlushesFirst) {
  auto vm = MakeVm({Slot(0, 0, 6 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(0), 8));
  const uint64_t flushes = FlushesOf(*vm);
  const uint64_t yields = YieldsOf(*vm, LockMode::kWrite, LockOp::kZap);
  std::unique_ptr<Waiter> waiter;
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kZap);
    waiter = std::make_unique<Waiter>(vm->state().mmu_lock, lock);
    vm->state().tdp.ZapLeafs(lock, 0, GfnRange::Of(Gfn(0), 8),
                             RootFilter::kValid, FlushReason::kZap, nullptr);
  }
  waiter.reset();
  EXPECT_GE(YieldsOf(*vm, LockMode::kWrite, LockOp::kZap), yields + 1);
  // One flush comes before the yield, for the first page; one comes at the end,
  // for the others.
  EXPECT_GE(FlushesOf(*vm), flushes + 2);
  EXPECT_THAT(AllMappings(vm->state()), IsEmpty());
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-31
TEST(TdpZapTest, ZappingADirtyEntryMarksNoPage) {
  auto vm = MakeVm({Slot(0, 0, 6 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  Write(*vm, 5 * kPageSize);
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(5));
  ASSERT_TRUE(
      ClearAndDeliver(*vm, 0, epoch, 0, 1536, MaskOf(1536, {5}), nullptr).ok());
  // The entry is write-protected, and its D bit is still set.
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{5, Level::k4K, "rmad"}));
  ZapLeafs(*vm, GfnRange::Of(Gfn(0), 512));
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());
  EXPECT_EQ(AuditFindings(*vm), "");
}

// --- Fast zap ---

// Covers: TDP-33, TDP-35, TLB-07
TEST(TdpFastZapTest, VcpusLoadANewRootAndNoFlushIsIssued) {
  auto vm =
      MakeVm({Slot(0, 0, 6 * kMiB), Slot(1, kGiB, 4 * kMiB, Level::k2M),
              Slot(2, 4 * kGiB, kGiB, Level::k1G, BackingKind::kMetadataOnly)},
             2);
  Touch(*vm, GfnRange::Of(Gfn(0), 700));
  Read(*vm, kGiB, 1);
  Read(*vm, 4 * kGiB, 1);
  const uint64_t old_root = vm->state().vcpus[0]->root()->id();
  const uint64_t flushes = FlushesOf(*vm);
  vm->state().tdp.FastZapAll(nullptr);
  EXPECT_EQ(FlushesOf(*vm), flushes);
  // When FastZapAll returns, nothing of the old root is left.
  const VmStatsSnapshot stats = vm->Stats();
  EXPECT_EQ(stats.pages_4k + stats.pages_2m + stats.pages_1g, 0u);
  EXPECT_EQ(stats.table_pages, 0u);
  EXPECT_TRUE(vm->state().vcpus[0]->root()->IsInvalid());

  for (int i = 0; i < 2; ++i) {
    Vcpu& vcpu = *vm->state().vcpus[i];
    EXPECT_EQ(vcpu.gate().pending_requests() & kFreeObsoleteRoots,
              kFreeObsoleteRoots);
    const uint64_t faults = vm->VcpuStats()[i].pf_taken;
    EXPECT_EQ(Read(*vm, 0, i), AccessOutcome::kDone);
    EXPECT_GT(vcpu.root()->id(), old_root);
    EXPECT_FALSE(vcpu.root()->IsInvalid());
    EXPECT_EQ(vm->VcpuStats()[i].pf_taken, faults + (i == 0 ? 1 : 0))
        << "what was cached is not used";
  }
  EXPECT_EQ(vm->state().vcpus[0]->root(), vm->state().vcpus[1]->root());
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Each pass leaves empty tables to the next one, so no step tears down more
// than one table.
//
// Covers: TDP-35
TEST(TdpFastZapTest, SmallEntriesGoBeforeLargeOnesAndTablesAfterTheirEntries) {
  auto vm =
      MakeVm({Slot(0, 0, 6 * kMiB), Slot(1, kGiB, 4 * kMiB, Level::k2M),
              Slot(2, 4 * kGiB, kGiB, Level::k1G, BackingKind::kMetadataOnly)});
  Touch(*vm, GfnRange::Of(Gfn(0), 700));
  Read(*vm, kGiB);
  Read(*vm, 4 * kGiB);
  // What is left when a table is unlinked: pages of 4K, of 2M, of 1G, tables.
  std::vector<std::array<uint64_t, 4>> left;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kUnlinkToCount) return;
      const VmStatsSnapshot stats = vm->Stats();
      left.push_back(
          {stats.pages_4k, stats.pages_2m, stats.pages_1g, stats.table_pages});
    });
    vm->state().tdp.FastZapAll(nullptr);
  }
  using Left = std::array<uint64_t, 4>;
  EXPECT_THAT(left,
              ElementsAre(Left{0, 1, 1, 5}, Left{0, 1, 1, 4},  // of 4K entries
                          Left{0, 0, 1, 3}, Left{0, 0, 1, 2},  // of 2M entries
                          Left{0, 0, 0, 1}));                  // of 1G entries
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-34, TDP-33, SPTE-47
TEST(TdpFastZapTest, NoVcpuRunsOnAnInvalidRootAfterwards) {
  auto vm = MakeVm({Slot(0, 0, 64 * kMiB, Level::k2M)}, 2);
  PatternSpec spec;
  spec.kind = PatternSpec::Kind::kUniform;
  spec.write_fraction = 0.5;
  WorkloadOptions options;
  for (int i = 0; i < 2; ++i) {
    options.sources.push_back(MakePattern(spec, vm->GuestSpace(), i, 2));
  }
  ASSERT_TRUE(vm->StartWorkload(std::move(options)).ok());
  for (int i = 0; i < 60; ++i) {
    if (i % 3 == 0) {
      testing::Split(*vm, GfnRange::Of(Gfn(0), 16 * k2MPages));
    }
    vm->state().tdp.FastZapAll(nullptr);
    if (i % 10 != 0) continue;
    vm->PauseVcpus();
    for (const auto& vcpu : vm->state().vcpus) {
      // The vCPU has a valid root, or will take the request before it does
      // anything else.
      EXPECT_TRUE(vcpu->root() == nullptr || !vcpu->root()->IsInvalid() ||
                  (vcpu->gate().pending_requests() & kFreeObsoleteRoots) != 0);
    }
    EXPECT_EQ(AuditFindings(*vm), "") << "frozen entries, counts, TLBs";
    vm->ResumeVcpus();
  }
  vm->StopWorkload();
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-36, TDP-09
TEST(TdpZapAllTest, AtTheEndOfTheMmuNothingIsLeftAndNobodyWasFlushed) {
  TablePool pool;
  MmuLock lock;
  RemoteTlb tlb;
  MmuCounters counters;
  InvalidationGate invalidations;
  NxHugePages nx_huge_pages;
  Memslot slot;
  slot.base_gfn = Gfn(0);
  slot.npages = 1 << 20;
  slot.lpage_info = std::make_shared<LpageInfo>(Gfn(0), slot.npages, Hva(0));
  {
    TdpMmu tdp({.format = SpteFormat::Npt(),
                .lock = lock,
                .tlb = tlb.Of(MmuKind::kTdp),
                .pool = pool,
                .counters = counters,
                .invalidations = invalidations,
                .nx_huge_pages = nx_huge_pages},
               TdpOptions());
    TableCache cache(pool);
    RootRef held;
    // Maps pages in a valid root and in an invalid one.
    for (int i = 0; i < 2; ++i) {
      absl::StatusOr<RootRef> root = tdp.LoadRoot(0, cache);
      ASSERT_TRUE(root.ok());
      for (const uint64_t gfn : {0, 5, 600, 300000}) {
        PageFault fault;
        fault.gfn = Gfn(gfn);
        fault.slot = &slot;
        fault.pfn = Pfn(gfn);
        ASSERT_TRUE(cache.TopUp(TdpMmu::kTablesPerFault).ok());
        MmuReadLocked held_lock(lock, LockOp::kFault);
        ASSERT_EQ(tdp.Map(held_lock, **root, fault, cache),
                  FaultResult::kFixed);
      }
      if (i == 0) {
        MmuWriteLocked held_lock(lock, LockOp::kZap);
        const_cast<RootList&>(tdp.roots()).InvalidateAll();
      }
    }
    EXPECT_EQ(counters.Leafs(Level::k4K), 8u);
  }
  EXPECT_EQ(counters.Leafs(Level::k4K), 0u);
  EXPECT_EQ(counters.Tables(), 0u);
  EXPECT_EQ(pool.tables_out(), 0u);
  EXPECT_EQ(tlb.Snapshot().remote_tlb_flush_requests, 0u);
}

// Covers: TDP-09, TLB-07, TDP-37, TDP-50, TDP-56
TEST(TdpInvalidRootTest, OnlyZapsThatAskForItSeeAnInvalidRoot) {
  auto vm = MakeVm({Slot(0, 0, 6 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 1024));
  TdpMmu& tdp = vm->state().tdp;
  TableCache cache(vm->state().pool);
  auto root = tdp.LoadRoot(0, cache);
  ASSERT_TRUE(root.ok());
  // Adds a table, so that recovery would find something to do.
  testing::Split(*vm, GfnRange::Of(Gfn(512), 512));
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kZap);
    const_cast<RootList&>(tdp.roots()).InvalidateAll();
  }
  const Spte huge = EntryIn(**root, Gfn(0), Level::k2M).Load();
  const Spte table = EntryIn(**root, Gfn(512), Level::k2M).Load();
  ASSERT_TRUE(huge.IsPresentLeaf(Level::k2M));
  const GfnRange range = GfnRange::Of(Gfn(0), 1536);
  const uint64_t flushes = FlushesOf(*vm);

  {
    MmuReadLocked lock(vm->state().mmu_lock, LockOp::kEnable);
    EXPECT_FALSE(tdp.WriteProtect(lock, 0, range, Level::k4K, nullptr));
    EXPECT_FALSE(tdp.ClearDirty(lock, 0, range, nullptr));
  }
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
    EXPECT_FALSE(tdp.WriteProtectGfn(lock, 0, Gfn(0), Level::k4K));
    EXPECT_FALSE(tdp.WriteProtectMasked(lock, 0, Gfn(512), 0xff, nullptr));
  }
  EXPECT_EQ(testing::Split(*vm, range).split_2m_count, 0);
  EXPECT_EQ(testing::Recover(*vm, range).to_2m_count, 0u);
  AgeResult aged = AgeResult::For(range);
  tdp.Age(0, range, AgeMode::kTestAndClear, AgeScan::kAllLeafs, aged, nullptr);
  EXPECT_EQ(aged.young_page_count + aged.old_page_count, 0u);
  EXPECT_FALSE(ZapLeafs(*vm, range, RootFilter::kValid));
  EXPECT_EQ(EntryIn(**root, Gfn(0), Level::k2M).Load(), huge);
  EXPECT_EQ(EntryIn(**root, Gfn(512), Level::k2M).Load(), table);

  EXPECT_TRUE(ZapLeafs(*vm, range, RootFilter::kAll));
  EXPECT_EQ(EntryIn(**root, Gfn(0), Level::k2M).Load(), Spte::Initial());
  EXPECT_EQ(EntryIn(**root, Gfn(512), Level::k4K).Load(), Spte::Initial());
  EXPECT_EQ(vm->Stats().pages_2m + vm->Stats().pages_4k, 0u);
  EXPECT_EQ(FlushesOf(*vm), flushes) << "no vCPU can use that root";
  // As after FastZapAll, the vCPU must drop its cached translations.
  vm->state().tlb.Request(kFreeObsoleteRoots);
  root->reset();
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TLB-07, TLB-09
TEST(TdpInvalidRootTest, AZapOfAnInvalidRootFlushesNotEvenWhereItYields) {
  auto vm = MakeVm({Slot(0, 0, 6 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(0), 16));
  const uint64_t flushes = FlushesOf(*vm);
  const uint64_t yields = YieldsOf(*vm, LockMode::kWrite, LockOp::kZap);
  std::unique_ptr<Waiter> waiter;
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kZap);
    const_cast<RootList&>(vm->state().tdp.roots()).InvalidateAll();
    vm->state().tlb.Request(kFreeObsoleteRoots);
    waiter = std::make_unique<Waiter>(vm->state().mmu_lock, lock);
    EXPECT_TRUE(vm->state().tdp.ZapLeafs(lock, 0, GfnRange::Of(Gfn(0), 16),
                                         RootFilter::kAll, FlushReason::kZap,
                                         nullptr));
  }
  waiter.reset();
  EXPECT_GE(YieldsOf(*vm, LockMode::kWrite, LockOp::kZap), yields + 1);
  EXPECT_EQ(FlushesOf(*vm), flushes);
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu
