// RACE-11 of mmu_core/LOCKING.md for splits of the TDP MMU: a split of a huge
// page against the processor and against another split, built step by step.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/mmu/huge_page_outcomes.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/race_test_util.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kPage = 5;
constexpr uint64_t kPageGpa = kPage * kPageSize;

int CountOf(const std::vector<HookPoint>& trace, HookPoint point) {
  return static_cast<int>(std::count(trace.begin(), trace.end(), point));
}

// The number of tables that are out of the pool and neither in the VM's tree
// nor in the stock of a vCPU or of `cache`.
uint64_t LostTables(Vm& vm, const TableCache& cache) {
  RcuBarrier();
  auto stock = static_cast<uint64_t>(cache.count());
  for (const auto& vcpu : vm.state().vcpus) {
    stock += static_cast<uint64_t>(vcpu->table_cache().count());
  }
  return vm.state().pool.tables_out() - vm.Stats().table_pages - stock;
}

// The split has one spare table, and can make do with it: it looks at the entry
// again and fills the same table with the new value.
// Covers: TDP-64, SPTE-26, TST-50
TEST(RaceSplitsTest, Race11BitSetWhileTheTableIsFilledIsInTheTable) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB, Level::k2M)}, 2);
  Read(*vm, 0);
  Read(*vm, 0, 1);  // both vCPUs load their root
  EntryOf(*vm, Gfn(0), Level::k2M)
      .FetchAnd(~vm->state().tdp.format().accessed_mask());
  TableCache cache(vm->state().pool);
  ASSERT_TRUE(cache.TopUp(1, 1).ok());
  const uint64_t lost = LostTables(*vm, cache);
  const uint64_t tables = vm->Stats().table_pages;
  SplitOutcome outcome;
  Interleaving threads;
  threads.Add("split", [&] {
    outcome = Split(*vm, GfnRange::Of(Gfn(0), k2MPages), cache);
  });
  threads.RunTo("split", HookPoint::kTableFilledToLink);
  vm->state().vcpus[1]->tlb().FlushAll();
  Read(*vm, 0, 1);  // the walk sets Accessed in the huge entry
  threads.RunToEnd("split");
  EXPECT_EQ(outcome.raced_count, 1);
  EXPECT_EQ(outcome.split_2m_count, 1);
  const std::vector<HookPoint> trace = threads.Trace("split");
  EXPECT_EQ(CountOf(trace, HookPoint::kTableFilledToLink), 2);
  EXPECT_EQ(CountOf(trace, HookPoint::kTopUp), 0) << "it took another table";
  EXPECT_EQ(cache.count(), 0);
  EXPECT_EQ(vm->Stats().table_pages, tables + 1);
  EXPECT_EQ(LostTables(*vm, cache), lost);
  EXPECT_TRUE(
      vm->state().tdp.format().IsAccessed(SpteOf(vm->state(), Gfn(kPage))));
  EXPECT_EQ(vm->Stats().pages_4k, k2MPages);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Two huge pages that may not be executed, in the TLBs of two vCPUs.
std::unique_ptr<Vm> MakeNxVm() {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)}, 2);
  vm->state().nx_huge_pages.SetMitigated(true);
  for (const int vcpu : {0, 1}) {
    Read(*vm, 0, vcpu);
    Read(*vm, 2 * kMiB, vcpu);
  }
  EXPECT_EQ(vm->Stats().pages_2m, 2u);
  return vm;
}

// A vCPU fetches from a huge page for which an eager split has filled a table.
// The fetch splits the page. The eager split puts its only table back and uses
// it for the next huge page.
// Covers: TDP-64
TEST(RaceSplitsTest, Race11EagerSplitThatLosesToAnNxSplitKeepsItsTable) {
  auto vm = MakeNxVm();
  TableCache cache(vm->state().pool);
  ASSERT_TRUE(cache.TopUp(1, 1).ok());
  const uint64_t lost = LostTables(*vm, cache);
  const uint64_t tables = vm->Stats().table_pages;
  SplitOutcome outcome;
  AccessOutcome fetched = AccessOutcome::kError;
  Interleaving threads;
  threads.Add("split", [&] {
    outcome = Split(*vm, GfnRange::Of(Gfn(0), 2 * k2MPages), cache);
  });
  threads.Add("fetch", [&] { fetched = Exec(*vm, kPageGpa, 1); });
  threads.RunTo("split", HookPoint::kTableFilledToLink);
  threads.RunToEnd("fetch");
  EXPECT_EQ(fetched, AccessOutcome::kDone);
  EXPECT_EQ(vm->Stats().Splits(Level::k2M, SplitTrigger::kNx), 1u);
  threads.RunTo("split", HookPoint::kTableFilledToLink);
  EXPECT_EQ(vm->Stats().table_pages, tables + 1) << "only that of the fetch";
  threads.RunToEnd("split");
  EXPECT_EQ(outcome.raced_count, 1);
  EXPECT_EQ(outcome.no_memory_count + outcome.limit_count, 0);
  EXPECT_EQ(CountOf(threads.Trace("split"), HookPoint::kTopUp), 0)
      << "it took another table";
  const VmStatsSnapshot stats = vm->Stats();
  EXPECT_EQ(stats.Splits(Level::k2M, SplitTrigger::kRequest), 1u);
  EXPECT_EQ(stats.Splits(Level::k2M, SplitTrigger::kNx), 1u);
  EXPECT_EQ(stats.nx_lpage_splits, 1u);
  EXPECT_EQ(stats.pages_4k, 2 * k2MPages);
  EXPECT_EQ(stats.pages_2m, 0u);
  EXPECT_EQ(stats.table_pages, tables + 2);
  EXPECT_EQ(cache.count(), 0);
  EXPECT_EQ(LostTables(*vm, cache), lost);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The other order: the fetch has filled its table when the eager split links
// its own. The fetch puts its table back, retries and finds the small page.
// Covers: TDP-42, TDP-64
TEST(RaceSplitsTest, Race11NxSplitThatLosesToAnEagerSplitKeepsItsTable) {
  auto vm = MakeNxVm();
  TableCache cache(vm->state().pool);
  ASSERT_TRUE(cache.TopUp(1, 1).ok());
  const uint64_t lost = LostTables(*vm, cache);
  const uint64_t tables = vm->Stats().table_pages;
  AccessOutcome fetched = AccessOutcome::kError;
  Interleaving threads;
  threads.Add("fetch", [&] { fetched = Exec(*vm, kPageGpa, 1); });
  threads.RunTo("fetch", HookPoint::kTableFilledToLink);
  Split(*vm, GfnRange::Of(Gfn(0), k2MPages), cache);
  const uint64_t retries = RetriesOf(*vm, 1);
  threads.RunToEnd("fetch");
  EXPECT_EQ(fetched, AccessOutcome::kDone);
  EXPECT_EQ(RetriesOf(*vm, 1), retries + 1);
  const VmStatsSnapshot stats = vm->Stats();
  EXPECT_EQ(stats.Splits(Level::k2M, SplitTrigger::kRequest), 1u);
  EXPECT_EQ(stats.Splits(Level::k2M, SplitTrigger::kNx), 0u);
  EXPECT_EQ(stats.nx_lpage_splits, 0u) << "the fetch has given up no huge page";
  EXPECT_EQ(stats.pages_4k, k2MPages);
  EXPECT_EQ(stats.pages_2m, 1u);
  EXPECT_EQ(stats.table_pages, tables + 1);
  EXPECT_EQ(LostTables(*vm, cache), lost);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The split runs under mmu_lock in write mode, as for a clear. The lock keeps
// other threads away, but not the processor and its Dirty bit.
// Covers: TDP-60, SPTE-26, TST-50
TEST(RaceSplitsTest, Race11BitSetDuringASplitInWriteModeIsInTheTable) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB, Level::k2M)}, 2);
  const SpteFormat& format = vm->state().tdp.format();
  Write(*vm, 0);
  Read(*vm, 0, 1);  // both vCPUs load their root
  EntryOf(*vm, Gfn(0), Level::k2M)
      .FetchAnd(~(format.accessed_mask() | format.dirty_mask()));
  TableCache cache(vm->state().pool);
  ASSERT_TRUE(cache.TopUp(1).ok());
  SplitOutcome outcome;
  Interleaving threads;
  threads.Add("split", [&] {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
    outcome = vm->state().tdp.Split(lock, 0, GfnRange::Of(Gfn(0), k2MPages),
                                    Level::k4K, SplitTrigger::kClear, cache,
                                    /*deadline_nanos=*/0, nullptr);
  });
  threads.RunTo("split", HookPoint::kTableFilledToLink);
  vm->state().vcpus[1]->tlb().FlushAll();
  Write(*vm, 0, 7, 1);  // the walk sets Accessed and Dirty in the huge entry
  const Spte huge = SpteOf(vm->state(), Gfn(0));
  ASSERT_TRUE(format.IsAccessed(huge) && format.IsDirty(huge));
  threads.RunToEnd("split");
  EXPECT_EQ(outcome.raced_count, 1);
  EXPECT_EQ(outcome.split_2m_count, 1);
  for (uint64_t page = 0; page < k2MPages; ++page) {
    const Spte spte = EntryOf(*vm, Gfn(page), Level::k4K).Load();
    ASSERT_TRUE(spte.IsPresentLeaf(Level::k4K)) << page;
    ASSERT_EQ(spte.pfn(), huge.pfn() + page) << page;
    ASSERT_EQ(spte.IsWritable(), huge.IsWritable()) << page;
    ASSERT_TRUE(format.IsAccessed(spte)) << page;
    ASSERT_TRUE(format.IsDirty(spte)) << page;
  }
  EXPECT_EQ(vm->Stats().pages_4k, k2MPages);
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu::testing
