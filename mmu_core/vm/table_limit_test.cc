// The limit on page tables is reached, and all remaining tables are on their
// way back to the pool. Every operation that needs tables must wait for them,
// however far on their way they are.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <string>

#include "gtest/gtest.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/paging/table_budget.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/refill.h"
#include "mmu_core/testing/hold_clock.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/vcpu/pre_fault.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kHuge = 16 * kMiB;  // the size of slot 0
constexpr uint64_t kFar = kGiB;        // the gpa of slot 1, which has 64 MiB
constexpr uint64_t kBlock = 2 * kGiB;  // the gpa of slot 2, one page of 2 MiB
constexpr uint64_t kHole = 4 * kGiB;   // no memory

struct Row {
  const char* operation;
  MmuMode mmu;
  // Unlinks more tables than `act` needs.
  std::function<void(Vm&)> unlink;
  // An operation that needs tables.
  std::function<void(Vm&)> act;
};

std::ostream& operator<<(std::ostream& os, const Row& row) {
  return os << row.operation;
}

TableBudget& Budget() { return TableBudget::Process(); }

// From now on no table may be taken but those that come back.
void SetLimitToWhatIsOut() {
  const TableBudget::Use use = Budget().Snapshot();
  Budget().SetMax(use.in_use + use.in_grace_period);
}

bool IsAtLimit() { return Budget().is_at_limit(/*units=*/1); }

// Unlinks the eight tables of slot 0.
void RecoverAll(Vm& vm) {
  EXPECT_EQ(vm.RecoverHugePages({}, nullptr)->to_2m_count, 8u);
}

// Unlinks a root and its tables.
void ZapAll(Vm& vm) {
  MutexLock lock(vm.state().slots.slots_lock);
  vm.state().mmus.FastZapAll(LockOp::kZap, nullptr);
}

void ZapShadowPages(Vm& vm) {
  MmuWriteLocked lock(vm.state().mmu_lock, LockOp::kZap);
  EXPECT_GE(vm.state().shadow->pages().zap().ZapOldest(lock, 6, nullptr), 6u);
}

// Zaps only pages of level 1, so that the first zapped page has leafs.
void ZapSmallShadowPages(Vm& vm) {
  MmuWriteLocked lock(vm.state().mmu_lock, LockOp::kZap);
  ShadowPages& pages = vm.state().shadow->pages();
  ZappedPages zapped;
  ShadowPageState* page = pages.set().active().oldest();
  while (page != nullptr) {
    ShadowPageState* const next = page->newer;
    if (page->level() == Level::k4K) {
      EXPECT_FALSE(pages.zap().Prepare(lock, *page, zapped).others);
    }
    page = next;
  }
  pages.zap().Commit(lock, zapped, nullptr);
}

void WriteFar(Vm& vm) {
  EXPECT_EQ(Write(vm, kFar + 40 * kMiB, 7), AccessOutcome::kDone);
}

// vCPU 1 has made no access before, so it has no stock of tables.
void WriteFarByVcpu1(Vm& vm) {
  EXPECT_EQ(Write(vm, kFar + 40 * kMiB, 7, /*vcpu=*/1), AccessOutcome::kDone);
}

void ReadHole(Vm& vm) { EXPECT_EQ(Read(vm, kHole), AccessOutcome::kEmulated); }

void WriteNear(Vm& vm) { EXPECT_EQ(Write(vm, 0, 7), AccessOutcome::kDone); }

void PreFaultFar(Vm& vm) {
  PreFaultRange range = {.gpa = Gpa(kFar + 40 * kMiB), .size_bytes = kPageSize};
  EXPECT_TRUE(PreFaultMemory(vm.state(), *vm.state().vcpus[0], range, [] {
                return false;
              }).ok());
}

void SplitBlocks(Vm& vm, GfnRange range, int64_t blocks) {
  SplitRequest request;
  request.ranges = {range};
  const auto job = SplitJob::Create(vm.state(), request);
  ASSERT_TRUE(job.ok());
  EXPECT_TRUE((*job)->Run().ok());
  EXPECT_EQ((*job)->Progress().split_2m_count, blocks);
}

void SplitOne(Vm& vm) {
  SplitBlocks(vm, GfnRange::Of(Gfn(kBlock >> kPageShift), 512), 1);
}

// Makes a VM, whose root of stage-2 tables is taken at once.
void MakeAnotherVm(Vm& vm) {
  VmConfig config;
  config.mmu = vm.config().mmu;
  EXPECT_TRUE(Vm::Create(config).ok());
}

// A VM that uses tables: with the TDP MMU or on stage 2 eight tables of small
// pages for slot 0, with the shadow MMU ten tables for slot 1.
std::unique_ptr<Vm> MakeVmWithTables(MmuMode mmu) {
  VmConfig config;
  config.mmu = mmu;
  if (mmu == MmuMode::kStage2) {
    config.stage2.eager_split_chunk_bytes = 2 * kMiB;
  }
  config.vcpu_count = 2;
  config.memslots = {Slot(0, 0, kHuge, Level::k2M), Slot(1, kFar, 64 * kMiB),
                     Slot(2, kBlock, 2 * kMiB, Level::k2M)};
  auto vm = MakeVmFrom(config);
  Touch(*vm, GfnRange::Of(Gfn(0), kHuge >> kPageShift));
  Write(*vm, kBlock);
  if (mmu != MmuMode::kTdpShadow) {
    SplitBlocks(*vm, GfnRange::Of(Gfn(0), kHuge >> kPageShift), 8);
  } else {
    for (uint64_t i = 0; i < 10; ++i) Write(*vm, kFar + i * 2 * kMiB);
  }
  RcuBarrier();
  return vm;
}

// Empties the vCPU's caches, which would delay the need for tables.
void EmptyStocks(Vm& vm) {
  VmState& state = vm.state();
  state.vcpus[0]->table_cache().Clear();
  if (ShadowVcpu* const shadow = state.vcpus[0]->shadow()) {
    shadow->guest().caches.tables.Clear();
  }
  MutexLock lock(state.slots.slots_lock);
  state.operation_tables.Clear();
}

class TableLimitTest : public ::testing::TestWithParam<Row> {
 protected:
  ~TableLimitTest() override { Budget().SetMax(0); }
};

// A reader holds up the grace period of the unlinked tables until the operation
// is about to wait for them.
// Covers: TDP-30, TDP-43
TEST_P(TableLimitTest, TablesInTheirGracePeriodAreWaitedFor) {
  const Row& row = GetParam();
  auto vm = MakeVmWithTables(row.mmu);
  EmptyStocks(*vm);
  SetLimitToWhatIsOut();
  const uint64_t waits = GracePeriodWaits();

  std::optional<RcuReadGuard> reader(std::in_place);
  row.unlink(*vm);
  EXPECT_GT(Budget().Snapshot().in_grace_period, 4u);
  EXPECT_TRUE(IsAtLimit());
  Interleaving threads;
  threads.Add("operation", [&] { row.act(*vm); });
  threads.RunTo("operation", HookPoint::kGracePeriod);
  EXPECT_EQ(GracePeriodWaits(), waits + 1);
  reader.reset();
  threads.RunToEnd("operation");
  EXPECT_EQ(vm->Stats().vcpus.fault_errors, 0u);
  Budget().SetMax(0);
  EXPECT_EQ(AuditFindings(*vm), "");
}

INSTANTIATE_TEST_SUITE_P(
    Operations, TableLimitTest,
    ::testing::Values(
        Row{"Fault", MmuMode::kTdp, RecoverAll, WriteFar},
        Row{"FaultWithoutASlot", MmuMode::kTdp, RecoverAll, ReadHole},
        Row{"LoadOfARoot", MmuMode::kTdp, ZapAll, WriteNear},
        Row{"PreFault", MmuMode::kTdp, RecoverAll, PreFaultFar},
        Row{"Split", MmuMode::kTdp, RecoverAll, SplitOne},
        Row{"Stage2Fault", MmuMode::kStage2, RecoverAll, WriteFarByVcpu1},
        Row{"Stage2Split", MmuMode::kStage2, RecoverAll, SplitOne},
        Row{"Stage2Root", MmuMode::kStage2, RecoverAll, MakeAnotherVm},
        Row{"ShadowFault", MmuMode::kTdpShadow, ZapShadowPages, WriteFar},
        Row{"LoadOfAShadowRoot", MmuMode::kTdpShadow, ZapAll, WriteNear}),
    [](const auto& p) { return std::string(p.param.operation); });

struct ZapRow {
  const char* zap_and_operation;
  MmuMode mmu;
  // Frees more tables than `act` needs. At `first` it has freed none yet.
  std::function<void(std::unique_ptr<Vm>&)> zap;
  HookPoint first;
  // An operation that needs tables, in the VM of the zap or in another one.
  enum class Where { kSameVm, kOtherVm } where;
  std::function<void(Vm&)> act;
};

std::ostream& operator<<(std::ostream& os, const ZapRow& row) {
  return os << row.zap_and_operation;
}

void ZapAllOf(std::unique_ptr<Vm>& vm) { ZapAll(*vm); }
void DeleteVm(std::unique_ptr<Vm>& vm) { vm.reset(); }
void RecoverAllOf(std::unique_ptr<Vm>& vm) { RecoverAll(*vm); }
void ZapShadowPagesOf(std::unique_ptr<Vm>& vm) { ZapShadowPages(*vm); }
void ZapSmallShadowPagesOf(std::unique_ptr<Vm>& vm) {
  ZapSmallShadowPages(*vm);
}

class TableLimitZapTest : public ::testing::TestWithParam<ZapRow> {
 protected:
  ~TableLimitZapTest() override { Budget().SetMax(0); }
};

// No valid root uses these tables any more, or they are unlinked and not yet
// handed to RCU. They still count as used, and an operation that needs tables
// must wait.
// Covers: TDP-30, TDP-43
TEST_P(TableLimitZapTest, TablesToWhichTheZapHasYetToComeAreWaitedFor) {
  const ZapRow& row = GetParam();
  auto vm = MakeVmWithTables(row.mmu);
  auto other = MakeVmWithTables(row.mmu);
  EmptyStocks(*vm);
  EmptyStocks(*other);
  Vm& subject = row.where == ZapRow::Where::kSameVm ? *vm : *other;
  SetLimitToWhatIsOut();
  const uint64_t waits = GracePeriodWaits();
  {
    Interleaving threads;
    threads.Add("zap", [&] { row.zap(vm); });
    threads.Add("operation", [&] { row.act(subject); });
    threads.RunTo("zap", row.first);
    EXPECT_TRUE(IsAtLimit());
    threads.RunTo("operation", HookPoint::kGracePeriod);
    threads.Start("operation");
    threads.RunToEnd("zap");
    threads.WaitForEnd("operation");
  }
  // The operation may wait several times, if it needs tables twice.
  EXPECT_GT(GracePeriodWaits(), waits);
  EXPECT_EQ(subject.Stats().vcpus.fault_errors, 0u);
  Budget().SetMax(0);
  EXPECT_EQ(AuditFindings(subject), "");
}

INSTANTIATE_TEST_SUITE_P(
    Zaps, TableLimitZapTest,
    ::testing::Values(
        ZapRow{"FastZapAndLoadOfARoot", MmuMode::kTdp, ZapAllOf,
               HookPoint::kSnapshotToExchange, ZapRow::Where::kSameVm,
               WriteNear},
        ZapRow{"FastZapAndFaultElsewhere", MmuMode::kTdp, ZapAllOf,
               HookPoint::kSnapshotToExchange, ZapRow::Where::kOtherVm,
               WriteFar},
        ZapRow{"FastZapAndPreFaultElsewhere", MmuMode::kTdp, ZapAllOf,
               HookPoint::kSnapshotToExchange, ZapRow::Where::kOtherVm,
               PreFaultFar},
        ZapRow{"DeletionAndFaultElsewhere", MmuMode::kTdp, DeleteVm,
               HookPoint::kSnapshotToExchange, ZapRow::Where::kOtherVm,
               WriteFar},
        ZapRow{"RecoveryThatHasUnlinkedAndFault", MmuMode::kTdp, RecoverAllOf,
               HookPoint::kUnlinkToCount, ZapRow::Where::kSameVm, WriteFar},
        ZapRow{"RecoveryAndFault", MmuMode::kTdp, RecoverAllOf,
               HookPoint::kFreezeToFree, ZapRow::Where::kSameVm, WriteFar},
        ZapRow{"ShadowFastZapAndFaultElsewhere", MmuMode::kTdpShadow, ZapAllOf,
               HookPoint::kSnapshotToStore, ZapRow::Where::kOtherVm, WriteFar},
        ZapRow{"ShadowDeletionAndFaultElsewhere", MmuMode::kTdpShadow, DeleteVm,
               HookPoint::kSnapshotToStore, ZapRow::Where::kOtherVm, WriteFar},
        ZapRow{"ShadowZapAndFaultElsewhere", MmuMode::kTdpShadow,
               ZapShadowPagesOf, HookPoint::kSnapshotToStore,
               ZapRow::Where::kOtherVm, WriteFar},
        ZapRow{"TheFirstShadowPageAndFaultElsewhere", MmuMode::kTdpShadow,
               ZapSmallShadowPagesOf, HookPoint::kSnapshotToStore,
               ZapRow::Where::kOtherVm, WriteFar},
        ZapRow{"ShadowPagesOnTheirWayToRcuAndFaultElsewhere",
               MmuMode::kTdpShadow, ZapShadowPagesOf, HookPoint::kFreezeToFree,
               ZapRow::Where::kOtherVm, WriteFar}),
    [](const auto& p) { return std::string(p.param.zap_and_operation); });

// A zap that has dropped the lock holds up no grace period. An operation that
// needs tables looks repeatedly, until the zap has freed some.
// Covers: TDP-30, TDP-35
TEST(TableLimitTest, AZapThatIsOffTheLockIsWaitedFor) {
  auto vm = MakeVmWithTables(MmuMode::kTdp);
  EmptyStocks(*vm);
  SetLimitToWhatIsOut();
  {
    const LeapingHoldClock clock;
    Interleaving threads;
    threads.Add("zap", [&] { ZapAll(*vm); });
    threads.Add("operation", [&] { WriteNear(*vm); });
    threads.RunTo("zap", HookPoint::kYield);
    EXPECT_EQ(Budget().Snapshot().in_grace_period, 0u);
    threads.RunTo("operation", HookPoint::kGracePeriod, 7);
    threads.Start("operation");
    threads.RunToEnd("zap");
    threads.WaitForEnd("operation");
  }
  EXPECT_EQ(vm->Stats().vcpus.fault_errors, 0u);
  Budget().SetMax(0);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The zap frees the tables that the guest needs to continue. Each round uses
// the same tables again.
TEST(TableLimitTest, AGuestIsZappedAtTheLimitAgainAndAgainAndIsNotLost) {
  auto vm = MakeVm({Slot(0, 0, 64 * kMiB)});
  const auto touch = [&] {
    for (uint64_t gpa = 0; gpa < 64 * kMiB; gpa += 2 * kMiB) {
      ASSERT_EQ(Write(*vm, gpa, 7), AccessOutcome::kDone);
    }
  };
  touch();
  SetLimitToWhatIsOut();
  for (int round = 0; round < 20; ++round) {
    ZapAll(*vm);
    touch();
  }
  Budget().SetMax(0);
  EXPECT_EQ(vm->Stats().table_pages, 34u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// No table is on its way back, so the guest gets an error and no thread waits.
TEST(TableLimitTest, WithoutTablesInTheirGracePeriodTheLimitIsTheLimit) {
  auto vm = MakeVm({Slot(0, 0, 64 * kMiB)});
  Write(*vm, 0);
  RcuBarrier();
  vm->state().vcpus[0]->table_cache().Clear();
  SetLimitToWhatIsOut();
  const uint64_t waits = GracePeriodWaits();
  EXPECT_EQ(Write(*vm, 32 * kMiB), AccessOutcome::kError);
  EXPECT_EQ(GracePeriodWaits(), waits);
  Budget().SetMax(0);
}

}  // namespace
}  // namespace mmu::testing
