// Splitting huge pages.

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/sync/hold_clock.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

using ::mmu::testing::AllMappings;
using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::FlushesOf;
using ::mmu::testing::k1GPages;
using ::mmu::testing::k2MPages;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::LevelOf;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Mapping;
using ::mmu::testing::MaskOf;
using ::mmu::testing::MeetingOfTwo;
using ::mmu::testing::Read;
using ::mmu::testing::ReadValue;
using ::mmu::testing::Recover;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::Split;
using ::mmu::testing::SpteOf;
using ::mmu::testing::StartLog;
using ::mmu::testing::Touch;
using ::mmu::testing::Waiter;
using ::mmu::testing::Write;
using ::mmu::testing::WriteProtect;
using ::mmu::testing::YieldsOf;
using ::testing::ElementsAre;

std::unique_ptr<Vm> MetadataVm(uint64_t size_bytes, Level host_level) {
  return MakeVm(
      {Slot(0, 0, size_bytes, host_level, BackingKind::kMetadataOnly)});
}

// While it exists, the pool hands out no more tables than are out now.
class NoMoreTables {
 public:
  NoMoreTables() {
    TablePool::Process().SetMaxTables(TablePool::Process().tables_out());
  }
  ~NoMoreTables() { TablePool::Process().SetMaxTables(0); }
};

// Covers: TDP-60, STAT-42, TLB-07, SPTE-26
TEST(TdpSplitTest, AHugePageBecomes512SmallOnesThatTranslateTheSame) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 1024));
  const Pfn frame = SpteOf(vm->state(), Gfn(0)).pfn();
  const uint64_t flushes = FlushesOf(*vm);
  const SplitOutcome outcome = Split(*vm, GfnRange::Of(Gfn(0), 512));
  EXPECT_EQ(outcome.split_2m_count, 1);
  EXPECT_EQ(outcome.split_1g_count, 0);
  EXPECT_EQ(outcome.next_gfn, Gfn(512));
  EXPECT_EQ(vm->Stats().pages_2m, 1u);
  EXPECT_EQ(vm->Stats().pages_4k, 512u);
  EXPECT_EQ(FlushesOf(*vm), flushes) << "no flush";
  std::vector<Mapping> expected;
  for (uint64_t gfn = 0; gfn < 512; ++gfn) {
    expected.push_back({gfn, Level::k4K, "rwad"});
    EXPECT_EQ(SpteOf(vm->state(), Gfn(gfn)).pfn(), frame + gfn);
  }
  expected.push_back({512, Level::k2M, "rwad"});
  EXPECT_EQ(AllMappings(vm->state()), expected);
  // The vCPU still uses its TLB entry of the huge page, as it may.
  EXPECT_EQ(vm->state().vcpus[0]->tlb().Lookup(PageNumber(7))->level,
            Level::k2M);
  EXPECT_EQ(ReadValue(*vm, 7 * kPageSize), 8u);
  vm->state().vcpus[0]->tlb().FlushAll();
  EXPECT_EQ(ReadValue(*vm, 7 * kPageSize), 8u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-61
TEST(TdpSplitTest, AGibibyteTakes513TablesDownToSmallPages) {
  auto vm = MetadataVm(2 * kGiB, Level::k1G);
  Read(*vm, 0);
  Read(*vm, kGiB);
  const uint64_t tables = vm->Stats().table_pages;
  const SplitOutcome outcome = Split(*vm, GfnRange::Of(Gfn(0), k1GPages));
  EXPECT_EQ(outcome.split_1g_count, 1);
  EXPECT_EQ(outcome.split_2m_count, 512);
  EXPECT_EQ(vm->Stats().table_pages, tables + 1 + 512);
  EXPECT_EQ(vm->Stats().pages_4k, 262144u);
  EXPECT_EQ(vm->Stats().pages_2m, 0u);
  EXPECT_EQ(vm->Stats().pages_1g, 1u);
  EXPECT_EQ(vm->Stats().Splits(Level::k2M, SplitTrigger::kRequest), 512u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-61
TEST(TdpSplitTest, ATargetOf2MStopsThere) {
  auto vm = MetadataVm(2 * kGiB, Level::k1G);
  Read(*vm, 0);
  // The range is inside the huge page, so the whole page is split at 1G, but
  // not below.
  const SplitOutcome outcome =
      Split(*vm, GfnRange::Of(Gfn(700), 1), Level::k2M);
  EXPECT_EQ(outcome.split_1g_count, 1);
  EXPECT_EQ(outcome.split_2m_count, 0);
  EXPECT_EQ(vm->Stats().pages_2m, 512u);
  EXPECT_EQ(Split(*vm, GfnRange::Of(Gfn(700), 1)).split_2m_count, 1);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(700)), Level::k4K);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(300)), Level::k2M);
  EXPECT_EQ(vm->Stats().pages_2m, 511u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-62
TEST(TdpSplitTest, TablesAreAllocatedWithTheLockDroppedAndNoneIsLeaked) {
  auto vm = MetadataVm(512 * kMiB, Level::k2M);
  for (uint64_t gpa = 0; gpa < 200 * kMiB; gpa += 2 * kMiB) Read(*vm, gpa);
  TablePool& pool = vm->state().pool;
  const auto acquisitions = [&] {
    return vm->Stats().lock.at(LockMode::kRead, LockOp::kSplit).acquisitions;
  };
  const uint64_t locks = acquisitions();
  const uint64_t tables = vm->Stats().table_pages;
  const uint64_t out = pool.tables_out();
  TableCache cache(pool);
  const SplitOutcome outcome =
      Split(*vm, GfnRange::Of(Gfn(0), 100 * k2MPages), cache);
  EXPECT_EQ(outcome.split_2m_count, 100);
  EXPECT_EQ(vm->Stats().table_pages, tables + 100);
  EXPECT_GE(acquisitions(), locks + 1 + 3)
      << "dropped each time the cache ran empty";
  EXPECT_EQ(pool.tables_out(), out + 100 + cache.count());
  cache.Clear();
  EXPECT_EQ(pool.tables_out(), out + 100) << "what was not needed went back";
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(TdpSplitTest, AFilledCacheIsUsedWithoutDroppingTheLock) {
  auto vm = MetadataVm(16 * kMiB, Level::k2M);
  Read(*vm, 0);
  TableCache cache(vm->state().pool);
  ASSERT_TRUE(cache.TopUp(1, 1).ok());
  NoMoreTables limit;
  EXPECT_EQ(Split(*vm, GfnRange::Of(Gfn(0), 512), cache).split_2m_count, 1);
  EXPECT_EQ(cache.count(), 0);
}

// Covers: TDP-08, TDP-63
TEST(TdpSplitTest, WithoutMemoryASplitStopsAndSaysWhere) {
  auto vm = MetadataVm(16 * kMiB, Level::k2M);
  for (uint64_t gpa = 0; gpa < 16 * kMiB; gpa += 2 * kMiB) Read(*vm, gpa);
  const TdpRoot& root = *vm->state().vcpus[0]->root();
  const int refs = root.references();
  TableCache cache(vm->state().pool);
  ASSERT_TRUE(cache.TopUp(3, 3).ok());
  SplitOutcome outcome;
  {
    NoMoreTables limit;
    outcome = Split(*vm, GfnRange::Of(Gfn(100), 7 * k2MPages), cache);
  }
  EXPECT_EQ(outcome.split_2m_count, 3);
  EXPECT_EQ(outcome.limit_count, 1);
  EXPECT_EQ(outcome.no_memory_count, 0);
  EXPECT_EQ(outcome.next_gfn, Gfn(3 * k2MPages));
  EXPECT_EQ(root.references(), refs);
  EXPECT_EQ(vm->Stats().pages_2m, 5u);
  EXPECT_EQ(vm->Stats().split_failures[static_cast<int>(SplitFailure::kLimit)],
            1u);
  // With enough memory, a second call continues from next_gfn.
  outcome = Split(*vm, {outcome.next_gfn, Gfn(8 * k2MPages)}, cache);
  EXPECT_EQ(outcome.split_2m_count, 5);
  EXPECT_EQ(vm->Stats().pages_2m, 0u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-63
TEST(TdpSplitTest, LoggingStartsWithoutMemoryAndTheRestStaysHugeAndProtected) {
  auto vm = MetadataVm(16 * kMiB, Level::k2M);
  for (uint64_t gpa = 0; gpa < 16 * kMiB; gpa += 2 * kMiB) Write(*vm, gpa);
  DirtyLogConfig config;
  config.split = SplitPolicy::kEager;
  {
    NoMoreTables limit;
    EXPECT_TRUE(StartLog(*vm, config, nullptr).ok());
  }
  std::vector<Mapping> expected;
  for (uint64_t gfn = 0; gfn < 8 * k2MPages; gfn += k2MPages) {
    expected.push_back({gfn, Level::k2M, "rmad"});
  }
  EXPECT_EQ(AllMappings(vm->state()), expected);
  Write(*vm, 5 * kPageSize);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(5));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-64
TEST(TdpSplitTest, ConcurrentSplitsSplitEachPageOnceAndLeakNothing) {
  auto vm = MetadataVm(2 * kGiB, Level::k1G);
  Read(*vm, 0);
  Read(*vm, kGiB);
  TablePool& pool = vm->state().pool;
  const uint64_t out = pool.tables_out();
  const uint64_t tables = vm->Stats().table_pages;
  constexpr int kThreads = 2;
  std::vector<SplitOutcome> outcomes(kThreads);
  {
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        outcomes[t] = Split(*vm, GfnRange::Of(Gfn(0), 2 * k1GPages));
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  const VmStatsSnapshot stats = vm->Stats();
  EXPECT_EQ(stats.table_pages, tables + 2 + 1024);
  EXPECT_EQ(stats.pages_4k, 2 * k1GPages);
  EXPECT_EQ(stats.pages_2m + stats.pages_1g, 0u);
  EXPECT_EQ(pool.tables_out(), out + 2 + 1024);
  EXPECT_EQ(stats.Splits(Level::k2M, SplitTrigger::kRequest), 1024u)
      << "each once";
  EXPECT_EQ(stats.Splits(Level::k1G, SplitTrigger::kRequest), 2u);
  EXPECT_EQ(
      stats.split_failures[static_cast<int>(SplitFailure::kRaced)],
      static_cast<uint64_t>(outcomes[0].raced_count + outcomes[1].raced_count));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Two threads split the same pages at the same moment. The thread that loses
// the race for an entry keeps its table.
// Covers: TDP-64
TEST(TdpSplitTest, WhoeverLosesTheRaceForAnEntryKeepsItsTable) {
  auto vm = MakeVm({Slot(0, 0, 16 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 4096));
  TablePool& pool = vm->state().pool;
  const uint64_t tables = vm->Stats().table_pages;
  RcuBarrier();
  const uint64_t out = pool.tables_out();
  const GfnRange range = GfnRange::Of(Gfn(0), 4096);
  // It depends on the machine whether a thread loses a race here.
  // vm/race_splits_test.cc forces one.
  for (int batch = 0; batch < 4; ++batch) {
    constexpr int kRounds = 50;
    MeetingOfTwo both;
    const auto work = [&](bool also_recovers) {
      TableCache cache(pool);
      for (int round = 0; round < kRounds; ++round) {
        ASSERT_TRUE(cache.TopUp(8).ok());
        both.Meet();
        Split(*vm, range, cache);
        both.Meet();
        if (also_recovers) {
          EXPECT_EQ(vm->Stats().pages_4k, 4096u);
          EXPECT_EQ(vm->Stats().table_pages, tables + 8);
          Recover(*vm, range);
        }
      }
    };
    std::thread other(work, false);
    work(true);
    other.join();
  }
  Recover(*vm, range);
  EXPECT_EQ(vm->Stats().pages_2m, 8u);
  EXPECT_EQ(vm->Stats().table_pages, tables);
  RcuBarrier();
  EXPECT_EQ(pool.tables_out(), out) << "no spare table was lost";
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-65
TEST(TdpSplitTest, TheSmallPagesHaveTheRightsAndBitsOfTheHugeOne) {
  auto vm = MakeVm({Slot(0, 0, 8 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 2048));
  WriteProtect(*vm, GfnRange::Of(Gfn(512), 512));
  {
    MmuReadLocked lock(vm->state().mmu_lock, LockOp::kEnable);
    vm->state().tdp.ClearDirty(lock, 0, GfnRange::Of(Gfn(1024), 512), nullptr);
  }
  {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
    vm->state().tdp.WriteProtectGfn(lock, 0, Gfn(1536), Level::k2M);
  }
  vm->state().tlb.Flush(FlushScope::kVm, FlushReason::kWriteProtect, nullptr);
  Split(*vm, GfnRange::Of(Gfn(0), 2048));
  const char* const flags[] = {"rwad", "rmad", "rwa", "rad"};
  std::vector<Mapping> expected;
  for (uint64_t gfn = 0; gfn < 2048; ++gfn) {
    expected.push_back({gfn, Level::k4K, flags[gfn / 512]});
  }
  EXPECT_EQ(AllMappings(vm->state()), expected);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TDP-66
TEST(TdpSplitTest, EnablingSplitsInReadModeAndClearingInWriteMode) {
  const auto locks = [](Vm& vm, LockMode mode, LockOp op) {
    return vm.Stats().lock.at(mode, op).acquisitions;
  };
  auto eager = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Touch(*eager, GfnRange::Of(Gfn(0), 1024));
  DirtyLogConfig config;
  config.split = SplitPolicy::kEager;
  ASSERT_TRUE(StartLog(*eager, config, nullptr).ok());
  EXPECT_EQ(eager->Stats().pages_4k, 1024u);
  EXPECT_GE(locks(*eager, LockMode::kRead, LockOp::kEnable), 1u);
  EXPECT_EQ(locks(*eager, LockMode::kWrite, LockOp::kEnable), 0u);
  EXPECT_EQ(locks(*eager, LockMode::kWrite, LockOp::kSplit), 0u);

  auto on_clear = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Touch(*on_clear, GfnRange::Of(Gfn(0), 1024));
  config.split = SplitPolicy::kOnClear;
  config.initially_set = InitiallySet::kYes;
  ASSERT_TRUE(StartLog(*on_clear, config, nullptr).ok());
  uint64_t epoch = 0;
  SealAndList(*on_clear, 0, &epoch);
  EXPECT_EQ(on_clear->Stats().pages_4k, 0u);
  const auto cleared =
      ClearAndDeliver(*on_clear, 0, epoch, 0, 1024, MaskOf(1024, {5}), nullptr);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->split_2m_count, 1u);
  EXPECT_EQ(on_clear->Stats().pages_4k, 512u);
  EXPECT_GE(locks(*on_clear, LockMode::kWrite, LockOp::kClear), 1u);
  EXPECT_EQ(locks(*on_clear, LockMode::kRead, LockOp::kClear), 0u);
  EXPECT_EQ(locks(*on_clear, LockMode::kRead, LockOp::kSplit), 0u);
  EXPECT_EQ(AuditFindings(*on_clear), "");
}

// Covers: TDP-24
TEST(TdpSplitTest, ItYieldsAndFlushesNothing) {
  auto vm = MetadataVm(64 * kMiB, Level::k2M);
  for (uint64_t gpa = 0; gpa < 64 * kMiB; gpa += 2 * kMiB) Read(*vm, gpa);
  const uint64_t flushes = FlushesOf(*vm);
  const uint64_t yields = YieldsOf(*vm, LockMode::kRead, LockOp::kSplit);
  TableCache cache(vm->state().pool);
  ASSERT_TRUE(cache.TopUp(32).ok());
  std::unique_ptr<Waiter> waiter;
  {
    MmuReadLocked lock(vm->state().mmu_lock, LockOp::kSplit);
    waiter = std::make_unique<Waiter>(vm->state().mmu_lock, lock);
    EXPECT_EQ(vm->state()
                  .tdp
                  .Split(lock, 0, GfnRange::Of(Gfn(0), 32 * k2MPages),
                         Level::k4K, SplitTrigger::kRequest, cache, 0, nullptr)
                  .split_2m_count,
              32);
  }
  waiter.reset();
  EXPECT_GE(YieldsOf(*vm, LockMode::kRead, LockOp::kSplit), yields + 1);
  EXPECT_EQ(FlushesOf(*vm), flushes);
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(TdpSplitTest, APassThatIsOverItsTimeDoesOneStepAndSaysWhereItStopped) {
  auto vm = MetadataVm(16 * kMiB, Level::k2M);
  for (uint64_t gpa = 0; gpa < 16 * kMiB; gpa += 2 * kMiB) Read(*vm, gpa);
  TableCache cache(vm->state().pool);
  ASSERT_TRUE(cache.TopUp(8).ok());
  Gfn next(0);
  for (int i = 1; i <= 8; ++i) {
    const SplitOutcome outcome =
        Split(*vm, {next, Gfn(8 * k2MPages)}, cache, Level::k4K,
              /*deadline_nanos=*/HoldNanos());
    EXPECT_EQ(outcome.split_2m_count, 1) << "it always gets on";
    EXPECT_EQ(outcome.next_gfn, Gfn(i * k2MPages));
    next = outcome.next_gfn;
  }
  EXPECT_EQ(vm->Stats().pages_2m, 0u);
}

// Covers: TDP-60
TEST(TdpSplitTest, RunningVcpusSeeTheSameMemoryWhileTheirPagesAreSplit) {
  auto vm = MakeVm({Slot(0, 0, 32 * kMiB, Level::k2M)}, 2);
  PatternSpec spec;
  spec.kind = PatternSpec::Kind::kUniform;
  spec.write_fraction = 0.5;
  WorkloadOptions options;
  for (int i = 0; i < 2; ++i) {
    options.sources.push_back(MakePattern(spec, vm->GuestSpace(), i, 2));
  }
  ASSERT_TRUE(vm->StartWorkload(std::move(options)).ok());
  const uint64_t flushes = FlushesOf(*vm);
  for (int i = 0; i < 16; ++i) {
    Split(*vm, GfnRange::Of(Gfn(i * k2MPages), k2MPages));
  }
  EXPECT_EQ(FlushesOf(*vm), flushes);
  vm->StopWorkload();
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu
