// Dirty logging of whole VMs on stage-2 tables: what is split, protected and
// invalidated when, and under which lock.

#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/paging/table_budget.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stats/counter_table.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/await.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/dirty_log_test_util.h"
#include "mmu_core/testing/hold_clock.h"
#include "mmu_core/testing/host_pages_test_util.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/stage2_vm_test_util.h"
#include "mmu_core/testing/thread_state.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/vcpu/stage2_vcpu.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::Await;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::Config;
using ::mmu::testing::FlushRequests;
using ::mmu::testing::HostPagesOf;
using ::mmu::testing::HostUnmaps;
using ::mmu::testing::Interleaving;
using ::mmu::testing::IsAsleep;
using ::mmu::testing::kBlocks;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::kPages2M;
using ::mmu::testing::LeapingHoldClock;
using ::mmu::testing::LevelOf;
using ::mmu::testing::LockTrace;
using ::mmu::testing::MakeStage2Vm;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::MaskOf;
using ::mmu::testing::ReadValue;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::Stage2LeafOf;
using ::mmu::testing::StartLog;
using ::mmu::testing::StillHoldClock;
using ::mmu::testing::StopLog;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

// The tables that are neither linked nor free: the stock for splits.
uint64_t Stock(const Vm& vm) {
  return S2Pool<Arm4K>::Process().tables_out() - vm.Stats().table_pages;
}

// Covers: DL-05
TEST(Stage2LogTest, BlocksAreProtectedAndFlushedBeforeTheyAreSplit) {
  const StillHoldClock clock;
  auto vm = MakeStage2Vm(2 * kMiB);
  int splits = 0;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kBreakToTlbi) return;
      ++splits;
      EXPECT_EQ(FlushRequests(*vm, FlushReason::kWriteProtect), 1u);
      for (uint64_t block = 0; block < kBlocks; ++block) {
        EXPECT_FALSE(Stage2LeafOf(*vm, block * kPages2M).IsWritable());
      }
    });
    ASSERT_TRUE(
        StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kEager)).ok());
  }
  EXPECT_EQ(splits, static_cast<int>(kBlocks));
  for (uint64_t page = 0; page < kBlocks * kPages2M; ++page) {
    EXPECT_EQ(LevelOf(vm->state(), Gfn(page)), Level{1}) << page;
    EXPECT_FALSE(Stage2LeafOf(*vm, page).IsWritable()) << page;
  }
  EXPECT_EQ(FlushRequests(*vm, FlushReason::kBbm), kBlocks);
  EXPECT_EQ(FlushRequests(*vm, FlushReason::kWriteProtect), 1u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-05
TEST(Stage2LogTest, WithAllPagesDirtyTheStartChangesNothing) {
  auto vm = MakeStage2Vm(2 * kMiB);
  const uint64_t requests = vm->Stats().flush.remote_tlb_flush_requests;
  ASSERT_TRUE(
      StartLog(*vm, Config(InitiallySet::kYes, SplitPolicy::kOnClear)).ok());
  for (uint64_t block = 0; block < kBlocks; ++block) {
    EXPECT_EQ(LevelOf(vm->state(), Gfn(block * kPages2M)), Level{2});
    EXPECT_TRUE(Stage2LeafOf(*vm, block * kPages2M).IsWritable());
  }
  EXPECT_EQ(vm->Stats().flush.remote_tlb_flush_requests, requests);
}

// When blocks are split, by the state in which the log begins and the chunk.
// Covers: ARM-28, ARM-20
TEST(Stage2LogTest, BlocksAreSplitAtTheStartOrAtTheClearOrByFaults) {
  struct Case {
    InitiallySet initially_set;
    SplitPolicy split;
    uint64_t chunk;
    Level at_start, after_clear;
  };
  const Level page{1};
  const Level block{2};
  for (const Case& c :
       {Case{InitiallySet::kNo, SplitPolicy::kEager, 0, block, block},
        Case{InitiallySet::kNo, SplitPolicy::kEager, 2 * kMiB, page, page},
        Case{InitiallySet::kYes, SplitPolicy::kOnClear, 0, block, block},
        Case{InitiallySet::kYes, SplitPolicy::kOnClear, 2 * kMiB, block,
             page}}) {
    SCOPED_TRACE(Format("initially set %d, chunk %d",
                        static_cast<int>(c.initially_set), c.chunk));
    auto vm = MakeStage2Vm(c.chunk);
    ASSERT_TRUE(StartLog(*vm, Config(c.initially_set, c.split)).ok());
    EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), c.at_start);
    uint64_t epoch = 0;
    SealAndList(*vm, 0, &epoch);
    std::vector<uint64_t> mask(kBlocks * kPages2M / 64);
    mask[0] = 1;
    ASSERT_TRUE(
        ClearAndDeliver(*vm, 0, epoch, 0, kBlocks * kPages2M, mask, nullptr)
            .ok());
    EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), c.after_clear);
    // The other blocks wait for their own clears.
    if (c.initially_set == InitiallySet::kYes) {
      EXPECT_EQ(LevelOf(vm->state(), Gfn(kPages2M)), block);
    }
    EXPECT_FALSE(Stage2LeafOf(*vm, 0).IsWritable());
    // A block that is left is split by the first write to it.
    EXPECT_EQ(Write(*vm, 0, 1), AccessOutcome::kDone);
    EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), page);
    EXPECT_EQ(AuditFindings(*vm), "");
  }
}

// Covers: DL-17
TEST(Stage2LogTest, AClearProtectsThePagesBetweenThoseThatItClears) {
  auto vm = MakeStage2Vm(2 * kMiB);
  ASSERT_TRUE(
      StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kEager)).ok());
  for (const uint64_t page : {2, 3, 5, 9, 10}) {
    ASSERT_EQ(Write(*vm, page * kPageSize, page), AccessOutcome::kDone);
  }
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(2, 3, 5, 9, 10));
  const absl::StatusOr<ClearResult> cleared =
      ClearAndDeliver(*vm, 0, epoch, 0, kBlocks * kPages2M,
                      MaskOf(kBlocks * kPages2M, {3, 9}), nullptr);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->cleared_page_count, 2u);
  EXPECT_EQ(cleared->also_protected_page_count, 1u);  // page 5
  for (const uint64_t page : {3, 5, 9}) {
    EXPECT_FALSE(Stage2LeafOf(*vm, page).IsWritable()) << page;
  }
  for (const uint64_t page : {2, 10}) {
    EXPECT_TRUE(Stage2LeafOf(*vm, page).IsWritable()) << page;
  }
  // Read again, the page in between stays as dirty as it was; written, it
  // faults.
  EXPECT_EQ(ReadValue(*vm, 5 * kPageSize), 5u);
  EXPECT_FALSE(Stage2LeafOf(*vm, 5).IsWritable());
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(2, 5, 10));
  ASSERT_TRUE(ClearAndDeliver(*vm, 0, epoch, 0, kBlocks * kPages2M,
                              MaskOf(kBlocks * kPages2M, {2, 5, 10}), nullptr)
                  .ok());
  EXPECT_EQ(ReadValue(*vm, 5 * kPageSize), 5u);
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), IsEmpty());
  ASSERT_EQ(Write(*vm, 5 * kPageSize, 6), AccessOutcome::kDone);
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(5));
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(Stage2LogTest, AClearOfAPartOfAGranuleProtectsAndReportsTheRest) {
  VmConfig config;
  config.mmu = MmuMode::kStage2;
  config.stage2.granule_bytes = 65536;
  config.memslots = {Slot(0, 0, kMiB, Level::k2M)};
  auto vm = MakeVmFrom(config);
  ASSERT_TRUE(StartLog(*vm).ok());
  ASSERT_EQ(Write(*vm, 65536, 1), AccessOutcome::kDone);
  uint64_t epoch = 0;
  std::vector<uint64_t> granule(16);
  std::iota(granule.begin(), granule.end(), uint64_t{16});
  EXPECT_EQ(SealAndList(*vm, 0, &epoch), granule);
  EXPECT_EQ(vm->Stats().vcpus.dirty_pages, 16u);
  EXPECT_EQ(vm->Stats().vcpus.dirty_log_faults, 0u) << "nothing was mapped";
  const absl::StatusOr<ClearResult> cleared =
      ClearAndDeliver(*vm, 0, epoch, 0, kMiB / kPageSize,
                      MaskOf(kMiB / kPageSize, {17, 20, 21}), nullptr);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->cleared_page_count, 3u);
  EXPECT_EQ(cleared->also_protected_page_count, 13u);
  EXPECT_EQ(cleared->still_sealed_page_count, 13u);
  // A write to any page of it makes all of it dirty again.
  ASSERT_EQ(Write(*vm, 65536 + 5 * kPageSize, 2), AccessOutcome::kDone);
  EXPECT_EQ(SealAndList(*vm, 0, &epoch), granule);
  EXPECT_EQ(vm->Stats().vcpus.dirty_pages, 32u);
  EXPECT_EQ(vm->Stats().vcpus.dirty_log_faults, 1u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-17, ARM-28
TEST(Stage2LogTest, AClearProtectsABlockBeforeItSplitsIt) {
  auto vm = MakeStage2Vm(2 * kMiB);
  ASSERT_TRUE(
      StartLog(*vm, Config(InitiallySet::kYes, SplitPolicy::kOnClear)).ok());
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  int splits = 0;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kTableFilledToLink) return;
      ++splits;
      EXPECT_FALSE(Stage2LeafOf(*vm, 0).IsWritable());
    });
    ASSERT_TRUE(ClearAndDeliver(*vm, 0, epoch, 0, kBlocks * kPages2M,
                                MaskOf(kBlocks * kPages2M, {3, 9}), nullptr)
                    .ok());
  }
  EXPECT_EQ(splits, 1);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level{1});
  EXPECT_FALSE(Stage2LeafOf(*vm, 100).IsWritable());
  EXPECT_TRUE(Stage2LeafOf(*vm, kPages2M).IsWritable());
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(Stage2LogTest, AClearThatLeavesABlockReportsAllThatItProtects) {
  struct Row {
    std::vector<uint64_t> cleared;
    uint64_t also_protected;
  };
  std::vector<uint64_t> whole_block(kPages2M);
  std::iota(whole_block.begin(), whole_block.end(), 0);
  for (const uint64_t chunk : {uint64_t{0}, 2 * kMiB}) {
    for (const Row& row : std::vector<Row>{
             {{3}, kPages2M - 1},
             // Words of one block: the first of them protects the block.
             {{3, 64, 500}, kPages2M - 3},
             {{511, 512}, 2 * kPages2M - 2},
             {whole_block, 0},
         }) {
      auto vm = MakeStage2Vm(chunk);
      ASSERT_TRUE(
          StartLog(*vm, Config(InitiallySet::kYes, SplitPolicy::kOnClear))
              .ok());
      uint64_t epoch = 0;
      SealAndList(*vm, 0, &epoch);
      const absl::StatusOr<ClearResult> cleared =
          ClearAndDeliver(*vm, 0, epoch, 0, kBlocks * kPages2M,
                          MaskOf(kBlocks * kPages2M, row.cleared), nullptr);
      ASSERT_TRUE(cleared.ok());
      EXPECT_EQ(cleared->also_protected_page_count, row.also_protected)
          << chunk << ", " << row.cleared.size() << " pages";
    }
  }
}

// Without tables a split at the start of the log does what it can: the log is
// on, and what is left is protected.
// Covers: ARM-29
TEST(Stage2LogTest, WithoutTablesTheLogStartsAndBlocksStayProtected) {
  auto vm = MakeStage2Vm(2 * kMiB);
  TableBudget& budget = TableBudget::Process();
  const TableBudget::Use use = budget.Snapshot();
  budget.SetMax(use.in_use + use.in_grace_period + 3);
  const absl::Status started =
      StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kEager));
  budget.SetMax(0);
  EXPECT_TRUE(started.ok()) << started;
  uint64_t blocks = 0;
  for (uint64_t block = 0; block < kBlocks; ++block) {
    const uint64_t page = block * kPages2M;
    blocks += LevelOf(vm->state(), Gfn(page)) == Level{2};
    EXPECT_FALSE(Stage2LeafOf(*vm, page).IsWritable()) << block;
  }
  EXPECT_GT(blocks, 0u);
  EXPECT_LT(blocks, kBlocks);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// KVM refuses to change the chunk of a VM that has a memslot (ARM-21). Here it
// may change at any time, so that a controller can choose it for a migration.
// Covers: ARM-21
TEST(Stage2LogTest, TheChunkIsASizeOfALeafAndCanChange) {
  auto vm = MakeStage2Vm(0);
  EXPECT_EQ(vm->eager_split_chunk_bytes(), 0u);
  for (const uint64_t bytes :
       {uint64_t{4096}, 2 * kMiB, kGiB, uint64_t{0}, 2 * kMiB}) {
    EXPECT_TRUE(vm->SetEagerSplitChunk(bytes).ok());
    EXPECT_EQ(vm->eager_split_chunk_bytes(), bytes);
  }
  for (const uint64_t bytes : {uint64_t{1}, 3 * kMiB, 2 * kGiB}) {
    const absl::Status status = vm->SetEagerSplitChunk(bytes);
    EXPECT_EQ(DetailOf(status).reason, Reason::kInvalidMmuOption);
    EXPECT_EQ(DetailOf(status).kvm_errno, EINVAL);
    EXPECT_EQ(DetailOf(status).field, "stage2.eager_split_chunk_bytes");
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("0, which splits nothing ahead, or the size of a "
                          "page or block, 4096, 2097152, 1073741824"));
    EXPECT_EQ(vm->eager_split_chunk_bytes(), 2 * kMiB);
  }
  VmConfig tdp;
  EXPECT_THAT(
      std::string(MakeVmFrom(tdp)->SetEagerSplitChunk(2 * kMiB).message()),
      HasSubstr("no stage-2 tables"));
  // The new chunk holds for the next log.
  ASSERT_TRUE(
      StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kEager)).ok());
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level{1});
}

// A slot that comes or moves keeps the stock if it logs, as here every slot
// does while the log is on.
//
// Covers: ARM-30
TEST(Stage2LogTest, TheStockOfTablesGoesWhenASlotStopsToLogOrGoes) {
  const std::vector<std::function<void(Vm&)>> changes = {
      [](Vm& vm) { EXPECT_TRUE(StopLog(vm).ok()); },
      [](Vm& vm) {
        EXPECT_TRUE(vm.DeleteMemslot(0, Undelivered::kDiscard).ok());
      },
  };
  for (const auto& change : changes) {
    // The tables for a whole chunk of 1 GiB, of which the slot needs few.
    auto vm = MakeStage2Vm(kGiB);
    const uint64_t before = Stock(*vm);
    ASSERT_TRUE(
        StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kEager)).ok());
    EXPECT_GE(Stock(*vm), before + 500);
    // A chunk that shrinks leaves the stock usable.
    ASSERT_TRUE(vm->SetEagerSplitChunk(4096).ok());
    change(*vm);
    RcuBarrier();
    EXPECT_EQ(Stock(*vm), before);
  }
}

// Covers: ARM-30
TEST(Stage2LogTest, ASplitWithoutALogLeavesNoStock) {
  auto vm = MakeStage2Vm(kGiB);
  const uint64_t before = Stock(*vm);
  ASSERT_TRUE(SplitJob::Create(vm->state(), {}).value()->Run().ok());
  EXPECT_EQ(vm->Stats().pages_2m, 0u);
  RcuBarrier();
  EXPECT_EQ(Stock(*vm), before);
}

// Covers: ARM-03
TEST(Stage2LogTest, FaultsShareTheLockAndAllElseHasItAlone) {
  const StillHoldClock clock;
  auto vm = MakeStage2Vm(2 * kMiB);
  const auto modes = [](auto run) {
    LockTrace trace;
    run();
    return trace.Modes();
  };
  EXPECT_EQ(
      modes([&] {
        EXPECT_TRUE(
            StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kEager)).ok());
      }),
      "write");
  // Permission, translation and Access flag faults.
  EXPECT_EQ(modes([&] { Write(*vm, 0, 1); }), "read");
  EXPECT_EQ(modes([&] { HostUnmaps(*vm, HostPagesOf(*vm, 0, 0, 1)); }),
            "write");
  EXPECT_EQ(modes([&] { ReadValue(*vm, 0); }), "read");
  EXPECT_EQ(modes([&] {
              EXPECT_TRUE(vm->Age(GfnRange::Of(Gfn(0), 64),
                                  AgeMode::kTestAndClear, nullptr)
                              .ok());
            }),
            "write");
  vm->state().vcpus[0]->stage2()->FlushAll();
  EXPECT_EQ(modes([&] { ReadValue(*vm, 0); }), "read");
  EXPECT_EQ(modes([&] {
              SplitRequest request;
              request.ranges = {GfnRange::Of(Gfn(0), kPages2M)};
              EXPECT_TRUE(vm->MakeSplitJob(request).value()->Run().ok());
            }),
            "write");
}

// The first write to a block costs the guest a fault for each other page of the
// block, unless the block was split ahead.
// Covers: ARM-35
TEST(Stage2LogTest, AReadAfterTheFirstWriteFaultsUnlessTheBlockWasSplitAhead) {
  for (const Level block : {Level::k2M, Level::k1G}) {
    const uint64_t pages = PagesPer<Arm4K>(block);
    for (const uint64_t chunk : {uint64_t{0}, BytesPer<Arm4K>(block)}) {
      SCOPED_TRACE(Format("a block of %d pages, chunks of %d", pages, chunk));
      VmConfig config;
      config.mmu = MmuMode::kStage2;
      config.stage2.eager_split_chunk_bytes = chunk;
      config.memslots = {Slot(0, 0, pages * kPageSize, block)};
      auto vm = MakeVmFrom(config);
      ASSERT_EQ(Write(*vm, 0), AccessOutcome::kDone);
      ASSERT_EQ(LevelOf(vm->state(), Gfn(0)), block);
      ASSERT_TRUE(
          StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kEager)).ok());
      ASSERT_EQ(Write(*vm, 7 * kPageSize), AccessOutcome::kDone);
      const VcpuStatsSnapshot before = vm->Stats().vcpus;
      Touch(*vm, GfnRange::Of(Gfn(0), pages), AccessKind::kRead);
      const VcpuStatsSnapshot after = vm->Stats().vcpus;
      EXPECT_EQ(after.pf_taken - before.pf_taken, chunk == 0 ? pages - 1 : 0);
      constexpr auto kSplit = static_cast<size_t>(StallCause::kSplit);
      EXPECT_EQ(after.stall_nanos[kSplit] > before.stall_nanos[kSplit],
                chunk == 0);
    }
  }
}

// Memory that was never mapped owes its fault to no split.
TEST(Stage2LogTest, AFirstAccessWhileLoggingIsNoStallOfASplit) {
  for (const uint64_t chunk : {uint64_t{0}, 2 * kMiB}) {
    auto vm = MakeStage2Vm(chunk);
    ASSERT_TRUE(vm->SetMemslot(Slot(1, kGiB, 2 * kMiB, Level::k2M)).ok());
    ASSERT_TRUE(
        StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kEager)).ok());
    Touch(*vm, GfnRange::Of(Gfn(kGiB / kPageSize), kPages2M));
    EXPECT_EQ(
        vm->Stats().vcpus.stall_nanos[static_cast<size_t>(StallCause::kSplit)],
        0u);
  }
}

// The host has no page below the granule, so an invalidation of a part of one
// holds back faults of all of it.
// Covers: AGE-01
TEST(Stage2LogTest, Race24AnInvalidationIsOfWholeGranules) {
  VmConfig config;
  config.mmu = MmuMode::kStage2;
  config.stage2.granule_bytes = 65536;
  config.memslots = {Slot(0, 0, kMiB)};
  auto vm = MakeVmFrom(config);
  ASSERT_EQ(Write(*vm, 0, 1), AccessOutcome::kDone);
  const HvaRange part = HostPagesOf(*vm, 0, 4, 5);
  InvalidateRangeStart(vm->state(), part, MayYield::kYes);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  Interleaving threads;
  threads.Add("fault", [&] { Write(*vm, 0, 7); });
  threads.RunTo("fault", HookPoint::kHeldBackToWait);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  InvalidateRangeEnd(vm->state(), part);
  threads.RunToEnd("fault");
  EXPECT_EQ(vm->Stats().pages_4k, 1u);
  EXPECT_EQ(ReadValue(*vm, 0), 7u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// A split drops mmu_lock to fill its stock of tables for the next block.
// Another thread waits to delete the slot, and the host takes memory away.
TEST(Stage2LogTest, Race54TheSlotStaysWhileASplitFillsItsStock) {
  auto vm = MakeStage2Vm(2 * kMiB);
  std::thread deletion;
  std::atomic<pid_t> deleter = 0;
  std::atomic<bool> deleted = false;
  int top_ups = 0;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kTopUp) return;
      EXPECT_EQ(event.mmu_lock, LockTrace::Held::kNothing);
      if (++top_ups == 1) {
        deletion = std::thread([&] {
          deleter = gettid();
          EXPECT_TRUE(vm->DeleteMemslot(0, Undelivered::kDiscard).ok());
          deleted = true;
        });
        std::thread([&] {
          HostUnmaps(*vm, HostPagesOf(*vm, 0, (kBlocks - 1) * kPages2M,
                                      kBlocks * kPages2M));
        }).join();
      }
      // It waits for slots_lock, and would go on if the split released it.
      Await("the deletion waits",
            [&] { return deleted || (deleter != 0 && IsAsleep(deleter)); });
      EXPECT_FALSE(deleted);
    });
    ASSERT_TRUE(
        StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kEager)).ok());
  }
  EXPECT_GE(top_ups, 2);
  deletion.join();
  EXPECT_EQ(vm->Stats().pages_4k + vm->Stats().pages_2m, 0u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: ARM-40
TEST(Stage2LogTest, AWalkOverMuchMemoryReleasesTheLock) {
  const LeapingHoldClock clock;
  constexpr uint64_t kMemory = 4 * kGiB;
  VmConfig config;
  config.mmu = MmuMode::kStage2;
  MemslotConfig slot = Slot(0, 0, kMemory, Level::k2M);
  slot.backing = BackingKind::kMetadataOnly;
  config.memslots = {slot};
  auto vm = MakeVmFrom(config);
  for (uint64_t gpa = 0; gpa < kMemory; gpa += 2 * kMiB) {
    uint64_t word = 0;
    ASSERT_EQ(vm->state().vcpus[0]->Access(Gpa(gpa), AccessKind::kRead, &word),
              AccessOutcome::kDone);
  }
  LockTrace trace;
  ASSERT_TRUE(
      StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kNone)).ok());
  EXPECT_GE(trace.CountOf(HookPoint::kYield), 3);
}

// An arm64 kernel has no counters of shadow pages, of the fast path, or of the
// instructions of x86. These rows are not listed for a VM on stage 2.
// Covers: STAT-40
TEST(Stage2LogTest, TheCountersThatOnlyX86HasAreNamedAndStayZero) {
  auto vm = MakeStage2Vm(2 * kMiB);
  ASSERT_TRUE(
      StartLog(*vm, Config(InitiallySet::kNo, SplitPolicy::kEager)).ok());
  for (uint64_t page = 0; page < kPages2M; ++page) {
    ASSERT_EQ(Write(*vm, page * kPageSize, 1), AccessOutcome::kDone);
  }
  HostUnmaps(*vm, HostPagesOf(*vm, 0, 0, 512));
  const VmStatsSnapshot stats = vm->Stats();
  EXPECT_GT(stats.flush.remote_tlb_flush_requests, 0u);
  std::vector<std::string> of_x86;
  for (const VmCounterRow& row : VmCounterRows()) {
    if (!row.of_x86) continue;
    of_x86.emplace_back(row.name);
    EXPECT_EQ(row.value(stats, {}), 0u) << row.name;
  }
  for (const VcpuCounterRow& row : VcpuCounterRows()) {
    if (!row.of_x86) continue;
    of_x86.emplace_back(row.name);
    EXPECT_EQ(row.value(stats.vcpus, {}), 0u) << row.name;
  }
  EXPECT_THAT(
      of_x86,
      UnorderedElementsAre(
          "mmu_shadow_pages", "mmu_shadow_zapped", "mmu_pte_write",
          "mmu_pde_zapped", "mmu_flooded", "mmu_recycled", "mmu_cache_miss",
          "mmu_unsync", "nx_lpage_splits", "max_mmu_rmap_size",
          "max_mmu_page_hash_collisions", "shadow_page_limit", "pf_fast",
          "pf_mmio_spte_created", "pf_guest", "invlpg"));
}

}  // namespace
}  // namespace mmu
