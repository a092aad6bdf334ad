// Huge page recovery.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"
#include "mmu_core/tdp/tdp_root.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/hold_clock.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

using ::mmu::testing::AllMappings;
using ::mmu::testing::AuditFindings;
using ::mmu::testing::FlushesOf;
using ::mmu::testing::k1GPages;
using ::mmu::testing::k2MPages;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::LevelOf;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Mapping;
using ::mmu::testing::Read;
using ::mmu::testing::ReadValue;
using ::mmu::testing::Recover;
using ::mmu::testing::Slot;
using ::mmu::testing::SlotOf;
using ::mmu::testing::Split;
using ::mmu::testing::SpteOf;
using ::mmu::testing::StartLog;
using ::mmu::testing::StopLog;
using ::mmu::testing::Touch;
using ::mmu::testing::Waiter;
using ::mmu::testing::Write;
using ::mmu::testing::YieldsOf;
using ::mmu::testing::ZapLeafs;
using ::testing::ElementsAre;

// Covers: TDP-52, SPTE-27
TEST(TdpRecoverTest, SplitPagesBecomeHugeAgainWithOneFlush) {
  auto vm = MakeVm({Slot(0, 0, 16 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 4096));
  const std::vector<Mapping> before = AllMappings(vm->state());
  const uint64_t tables = vm->Stats().table_pages;
  Split(*vm, GfnRange::Of(Gfn(0), 4096));
  ASSERT_EQ(vm->Stats().pages_4k, 4096u);
  const uint64_t out = vm->state().pool.tables_out();
  const uint64_t flushes = FlushesOf(*vm);
  MmuCost cost;
  const RecoverOutcome outcome =
      Recover(*vm, GfnRange::Of(Gfn(0), 4096), &cost);
  EXPECT_EQ(outcome.to_2m_count, 8u);
  EXPECT_EQ(outcome.to_1g_count, 0u);
  EXPECT_EQ(AllMappings(vm->state()), before);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  EXPECT_EQ(vm->Stats().table_pages, tables);
  // One flush at the end, and one more per yield.
  EXPECT_EQ(FlushesOf(*vm),
            flushes + 1 + YieldsOf(*vm, LockMode::kRead, LockOp::kRecover));
  RcuBarrier();
  EXPECT_EQ(vm->state().pool.tables_out(), out - 8) << "the tables went back";
  EXPECT_EQ(vm->Stats().recoveries[0], 8u);
  for (const uint64_t page : {0, 7, 4095}) {
    EXPECT_EQ(ReadValue(*vm, page * kPageSize), page + 1);
  }
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-54, TDP-52
TEST(TdpRecoverTest, OneMappedPageOf512IsEnough) {
  auto vm = MakeVm({Slot(0, 0, 6 * kMiB, Level::k2M)});
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  Write(*vm, 700 * kPageSize, 42);
  const Pfn frame = SpteOf(vm->state(), Gfn(700)).pfn();
  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr).ok());
  EXPECT_EQ(vm->Stats().pages_4k, 1u);
  EXPECT_EQ(Recover(*vm, GfnRange::Of(Gfn(0), 1536)).to_2m_count, 1u);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{512, Level::k2M, "rwad"}));
  EXPECT_EQ(SpteOf(vm->state(), Gfn(512)).pfn(), frame - (700 - 512));
  EXPECT_EQ(ReadValue(*vm, 700 * kPageSize), 42u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// One young small page makes the huge page young, even if it is not the first.
// Covers: TDP-52, SPTE-27
TEST(TdpRecoverTest, OneYoungPageOf512MakesTheHugeOneYoung) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 1024));
  Split(*vm, GfnRange::Of(Gfn(0), 1024));
  ASSERT_TRUE(
      vm->Age(GfnRange::Of(Gfn(0), 1024), AgeMode::kTestAndClear, nullptr)
          .ok());
  vm->state().vcpus[0]->tlb().FlushAll();
  Read(*vm, 300 * kPageSize);
  EXPECT_EQ(Recover(*vm, GfnRange::Of(Gfn(0), 1024)).to_2m_count, 2u);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k2M, "rwad"},
                          Mapping{512, Level::k2M, "rwd"}));
}

// Covers: TDP-52
TEST(TdpRecoverTest, TablesWithoutALeafAreLeftAlone) {
  auto vm = MakeVm({Slot(0, 0, 6 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 512));
  Split(*vm, GfnRange::Of(Gfn(0), 512));
  ZapLeafs(*vm, GfnRange::Of(Gfn(0), 512));
  const uint64_t flushes = FlushesOf(*vm);
  EXPECT_EQ(Recover(*vm, GfnRange::Of(Gfn(0), 1536)).to_2m_count, 0u);
  EXPECT_EQ(FlushesOf(*vm), flushes);
  EXPECT_EQ(vm->Stats().pages_2m, 0u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-52
TEST(TdpRecoverTest, AGibibyteComesBackWholeAndOnlyWhereTheHostAllows) {
  auto vm =
      MakeVm({Slot(0, 0, kGiB, Level::k1G, BackingKind::kMetadataOnly),
              Slot(1, 2 * kGiB, kGiB, Level::k2M, BackingKind::kMetadataOnly)});
  Read(*vm, 0);
  Split(*vm, GfnRange::Of(Gfn(0), k1GPages));
  EXPECT_EQ(vm->Stats().pages_4k, k1GPages);
  const RecoverOutcome outcome = Recover(*vm, GfnRange::Of(Gfn(0), k1GPages));
  EXPECT_EQ(outcome.to_1g_count, 1u);
  EXPECT_EQ(outcome.to_2m_count, 0u);
  EXPECT_EQ(vm->Stats().pages_1g, 1u);
  EXPECT_EQ(vm->Stats().pages_4k + vm->Stats().pages_2m, 0u);

  const Gfn second(2 * k1GPages);
  Read(*vm, 2 * kGiB);
  Split(*vm, GfnRange::Of(second, 512));
  EXPECT_EQ(Recover(*vm, GfnRange::Of(second, k1GPages)).to_2m_count, 1u);
  EXPECT_EQ(LevelOf(vm->state(), second), Level::k2M);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-52, SLOT-45
TEST(TdpRecoverTest, NoHugePageReachesBeyondTheRangeOrTheSlot) {
  // The slot ends within a huge page.
  auto vm = MakeVm({Slot(0, 0, 5 * kMiB, Level::k2M)});
  const GfnRange all = GfnRange::Of(Gfn(0), 1280);
  Touch(*vm, all);
  Split(*vm, all);
  const std::vector<Mapping> split = AllMappings(vm->state());
  EXPECT_EQ(split.size(), 1280u);
  EXPECT_EQ(Recover(*vm, GfnRange::Of(Gfn(1), 1000)).to_2m_count, 0u)
      << "both pages are only partly in the range";
  EXPECT_EQ(AllMappings(vm->state()), split);
  EXPECT_EQ(Recover(*vm, all).to_2m_count, 2u);
  EXPECT_EQ(vm->Stats().pages_2m, 2u);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(1024)), Level::k4K);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(1279)), Level::k4K);
  EXPECT_EQ(AuditFindings(*vm), "");

  // The slot begins within a huge page: the first gfn of its table is outside.
  vm = MakeVm({Slot(0, kMiB, 4 * kMiB, Level::k2M)});
  const GfnRange later = GfnRange::Of(Gfn(256), 1024);
  Touch(*vm, later);
  Split(*vm, later);
  EXPECT_EQ(Recover(*vm, later).to_2m_count, 1u);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(256)), Level::k4K);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(512)), Level::k2M);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-52, SLOT-40
TEST(TdpRecoverTest, NoHugePageIsMadeWhereASlotForbidsIt) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  const GfnRange all = GfnRange::Of(Gfn(0), 2 * k2MPages);
  Touch(*vm, all);
  Split(*vm, all);
  SlotOf(*vm, Gfn(0)).lpage_info->Disallow(Gfn(700));
  EXPECT_EQ(Recover(*vm, all).to_2m_count, 1u);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k2M);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(700)), Level::k4K);
  SlotOf(*vm, Gfn(0)).lpage_info->Allow(Gfn(700));
  EXPECT_EQ(Recover(*vm, all).to_2m_count, 1u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-52
TEST(TdpRecoverDeathTest, ALoggedSlotIsNeverRecovered) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
        MMU_CHECK(StartLog(*vm, {}, nullptr).ok());
        Recover(*vm, GfnRange::Of(Gfn(0), 1024));
      },
      "dirty_log_enabled");
}

// Covers: TDP-24, TDP-52, TDP-21
TEST(TdpRecoverTest, AYieldFlushesWhatWasRecoveredBefore) {
  auto vm = MakeVm({Slot(0, 0, 16 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 4096));
  Split(*vm, GfnRange::Of(Gfn(0), 4096));
  const uint64_t flushes = FlushesOf(*vm);
  const uint64_t yields = YieldsOf(*vm, LockMode::kRead, LockOp::kRecover);
  std::unique_ptr<Waiter> waiter;
  {
    MmuReadLocked lock(vm->state().mmu_lock, LockOp::kRecover);
    waiter = std::make_unique<Waiter>(vm->state().mmu_lock, lock);
    EXPECT_EQ(vm->state()
                  .tdp
                  .Recover(lock, SlotOf(*vm, Gfn(0)),
                           GfnRange::Of(Gfn(0), 4096), nullptr)
                  .to_2m_count,
              8u);
  }
  waiter.reset();
  EXPECT_GE(YieldsOf(*vm, LockMode::kRead, LockOp::kRecover), yields + 1);
  EXPECT_GE(FlushesOf(*vm), flushes + 2);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Recovery of a GiB of small pages takes several holds of the lock.
// Covers: TDP-52
TEST(TdpRecoverTest, AWriterWaitsForOneTableOnly) {
  auto vm = MakeVm({Slot(0, 0, kGiB, Level::k1G, BackingKind::kMetadataOnly)});
  Read(*vm, 0);
  Split(*vm, GfnRange::Of(Gfn(0), k1GPages));
  const uint64_t yields = YieldsOf(*vm, LockMode::kRead, LockOp::kRecover);
  std::unique_ptr<Waiter> waiter;
  {
    MmuReadLocked lock(vm->state().mmu_lock, LockOp::kRecover);
    waiter = std::make_unique<Waiter>(vm->state().mmu_lock, lock);
    EXPECT_EQ(vm->state()
                  .tdp
                  .Recover(lock, SlotOf(*vm, Gfn(0)),
                           GfnRange::Of(Gfn(0), k1GPages), nullptr)
                  .to_1g_count,
              1u);
  }
  waiter.reset();
  EXPECT_GE(YieldsOf(*vm, LockMode::kRead, LockOp::kRecover), yields + 1);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Tables without leafs, whose pages the host has taken away, also stand in the
// way of a 1G page. There may be 511 of them.
// Covers: TDP-52
TEST(TdpRecoverTest, EmptyTablesBelowAGibibyteGoOneByOne) {
  auto vm = MakeVm({Slot(0, 0, kGiB, Level::k1G, BackingKind::kMetadataOnly)});
  Read(*vm, 0);
  Split(*vm, GfnRange::Of(Gfn(0), k1GPages));
  ZapLeafs(*vm, {Gfn(1), Gfn(k1GPages)});
  ASSERT_EQ(vm->Stats().pages_4k, 1u);
  const int64_t tables = static_cast<int64_t>(vm->Stats().table_pages);
  int64_t most = 0;
  int64_t before = tables;
  RecoverOutcome outcome;
  {
    const testing::StillHoldClock clock;
    testing::LockTrace trace([&](const testing::LockTrace::Event& event) {
      if (event.point != HookPoint::kUnlock) return;
      const auto now = static_cast<int64_t>(vm->Stats().table_pages);
      most = std::max(most, before - now);
      before = now;
    });
    outcome = Recover(*vm, GfnRange::Of(Gfn(0), k1GPages));
  }
  EXPECT_EQ(outcome.to_1g_count, 1u);
  EXPECT_EQ(vm->Stats().pages_1g, 1u);
  EXPECT_EQ(static_cast<int64_t>(vm->Stats().table_pages), tables - 513);
  EXPECT_LE(most, HoldLimit::kMaxEntries / 512);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The flush says that a table went, although the table had no leaf.
// Covers: TDP-52, TLB-10
TEST(TdpRecoverTest, NoVcpuKeepsAPointerToAnEmptyTableThatWent) {
  auto vm = MakeVm({Slot(0, 0, kGiB, Level::k1G, BackingKind::kMetadataOnly)});
  const GfnRange block = GfnRange::Of(Gfn(k2MPages), k2MPages);
  Read(*vm, 0);
  Split(*vm, block);
  vm->state().vcpus[0]->tlb().FlushAll();
  Read(*vm, k2MPages * kPageSize);  // caches the table
  ZapLeafs(*vm, block);
  const uint64_t tables = vm->Stats().table_pages;
  Recover(*vm, block);
  EXPECT_EQ(vm->Stats().table_pages, tables - 1);
  vm->state().vcpus[0]->HandleRequests();
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Returns whether `gfn` is mapped in `root` at this moment. A walk that is in a
// table while recovery freezes it meets a frozen entry, where a processor would
// fault. Such a table is no longer linked, so a new walk from the root finds
// the page. The table cannot be linked again during the walk, because RCU keeps
// it from being freed.
bool IsMapped(const TdpRoot& root, Gfn gfn) {
  RcuReadGuard rcu;
  for (;;) {
    const SpteSlot* parent = nullptr;
    Spte link;
    PageTable* table = root.table();
    Level level = root.level();
    Spte spte;
    for (;;) {
      const SpteSlot& slot = table->entries[IndexOf(gfn, level)];
      spte = slot.Load();
      if (!spte.IsPresentTable(level)) break;
      parent = &slot;
      link = spte;
      table = TableOf(spte);
      level = ChildOf(level);
    }
    if (spte.IsPresent()) return true;
    if (parent == nullptr || parent->Load() == link) return false;
  }
}

// vCPUs write and read all the while, so the test also checks the contents.
// Covers: TDP-52, TDP-30
TEST(TdpRecoverTest, PagesStayMappedAndRightWhileVcpusRun) {
  auto vm = MakeVm({Slot(0, 0, 16 * kMiB, Level::k2M)}, 2);
  Touch(*vm, GfnRange::Of(Gfn(0), 4096));
  const TdpRoot& root = *vm->state().vcpus[0]->root();
  PatternSpec spec;
  spec.kind = PatternSpec::Kind::kUniform;
  spec.write_fraction = 0.5;
  WorkloadOptions options;
  for (int i = 0; i < 2; ++i) {
    options.sources.push_back(MakePattern(spec, vm->GuestSpace(), i, 2));
  }
  ASSERT_TRUE(vm->StartWorkload(std::move(options)).ok());
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> looks{0};
  uint64_t unmapped = 0;
  std::thread observer([&] {
    for (uint64_t page = 0; !stop.load(); page = (page + 37) % 4096) {
      unmapped += IsMapped(root, Gfn(page)) ? 0 : 1;
      ++looks;
    }
  });
  const uint64_t enough = 40 * 64;
  for (int i = 0; i < 40 || looks.load() < enough; ++i) {
    Split(*vm, GfnRange::Of(Gfn(0), 4096));
    Recover(*vm, GfnRange::Of(Gfn(0), 4096));
  }
  stop.store(true);
  observer.join();
  vm->StopWorkload();
  EXPECT_EQ(unmapped, 0u);
  EXPECT_EQ(vm->Stats().vcpus.fault_errors, 0u);
  EXPECT_EQ(vm->Stats().pages_2m, 8u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// A processor in the middle of a walk meets the frozen entries of a table that
// recovery has unlinked. The page was never unmapped, so the fault is spurious.
// Recovery does not promise to avoid such faults.
// Covers: TDP-52, TDP-30
TEST(TdpRecoverTest, AWalkThatIsInATableTakenApartFaultsInVain) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), k2MPages));
  Split(*vm, GfnRange::Of(Gfn(0), k2MPages));
  vm->state().vcpus[0]->tlb().FlushAll();
  const VcpuStatsSnapshot before = vm->Stats().vcpus;
  testing::Interleaving threads;
  threads.Add("guest", [&] { EXPECT_EQ(ReadValue(*vm, 7 * kPageSize), 8u); });
  threads.Add("recover", [&] { Recover(*vm, GfnRange::Of(Gfn(0), k2MPages)); });
  // The walk goes from level 4 to 1, so the third table pointer leads to the
  // table of small pages.
  threads.RunTo("guest", HookPoint::kWalkToTable, 3);
  // The flush of the recovery will wait for the walk.
  threads.RunTo("recover", HookPoint::kFreezeToFree);
  threads.RunToEnd("guest");
  threads.RunToEnd("recover");
  const VcpuStatsSnapshot since = vm->Stats().vcpus.Since(before);
  EXPECT_EQ(since.pf_taken, 1u);
  EXPECT_EQ(since.pf_spurious, 1u);
  EXPECT_EQ(vm->Stats().pages_2m, 1u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu
