// At the limit on page tables, when all that is left is in its grace period:
// whoever needs tables waits, whatever it needs them for.

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
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/mutex.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/refill.h"
#include "mmu_core/tdp/tdp_test_util.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/pre_fault.h"
#include "mmu_core/vm/shadow_vcpu.h"
#include "mmu_core/vm/split_job.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kHuge = 16 * kMiB;  // of slot 0
constexpr uint64_t kFar = kGiB;        // where slot 1 is, 64 MiB
constexpr uint64_t kHole = 4 * kGiB;   // no memory

struct Row {
  const char* operation;
  MmuMode mmu;
  // Unlinks tables, more than `act` needs.
  std::function<void(Vm&)> unlink;
  // Needs tables.
  std::function<void(Vm&)> act;
};

std::ostream& operator<<(std::ostream& os, const Row& row) {
  return os << row.operation;
}

// The eight tables of slot 0.
void RecoverAll(Vm& vm) {
  EXPECT_EQ(vm.RecoverHugePages({}, nullptr)->to_2m_count, 8u);
}

// A root and its tables.
void ZapAll(Vm& vm) {
  MutexLock lock(vm.state().slots.slots_lock);
  vm.state().FastZapAll(nullptr, LockOp::kZap);
}

void ZapShadowPages(Vm& vm) {
  MmuWriteLocked lock(vm.state().mmu_lock, LockOp::kZap);
  EXPECT_GE(vm.state().shadow->pages().zap().ZapOldest(lock, 6, nullptr), 6u);
}

void WriteFar(Vm& vm) {
  EXPECT_EQ(Write(vm, kFar + 40 * kMiB, 7), AccessOutcome::kDone);
}

void ReadHole(Vm& vm) { EXPECT_EQ(Read(vm, kHole), AccessOutcome::kEmulated); }

void WriteNear(Vm& vm) { EXPECT_EQ(Write(vm, 0, 7), AccessOutcome::kDone); }

void PreFaultFar(Vm& vm) {
  PreFaultRange range = {.gpa = Gpa(kFar + 40 * kMiB), .size_bytes = kPageSize};
  EXPECT_TRUE(PreFaultMemory(vm.state(), *vm.state().vcpus[0], range, [] {
                return false;
              }).ok());
}

void SplitOne(Vm& vm) {
  SplitRequest request;
  request.ranges = {GfnRange::Of(Gfn(0), 512)};
  const auto job = SplitJob::Create(vm, request);
  ASSERT_TRUE(job.ok());
  EXPECT_TRUE((*job)->Run().ok());
  EXPECT_EQ((*job)->Progress().split_2m_count, 1);
}

class TableLimitTest : public ::testing::TestWithParam<Row> {
 protected:
  ~TableLimitTest() override { TablePool::Process().SetMaxTables(0); }
};

// A reader keeps the unlinked tables from their pool until the operation is
// about to wait for them.
// Covers: TDP-30, TDP-43
TEST_P(TableLimitTest, TablesInTheirGracePeriodAreWaitedFor) {
  const Row& row = GetParam();
  VmConfig config;
  config.mmu = row.mmu;
  config.memslots = {Slot(0, 0, kHuge, Level::k2M), Slot(1, kFar, 64 * kMiB)};
  auto vm = MakeVmFrom(config);
  VmState& state = vm->state();
  Touch(*vm, GfnRange::Of(Gfn(0), kHuge >> kPageShift));
  if (row.mmu == MmuMode::kTdp) {
    Split(*vm, GfnRange::Of(Gfn(0), kHuge >> kPageShift));
  } else {
    for (uint64_t i = 0; i < 10; ++i) Write(*vm, kFar + i * 2 * kMiB);
  }
  RcuBarrier();
  // Stocks would last for a while.
  state.vcpus[0]->table_cache().Clear();
  if (ShadowVcpu* const shadow = state.vcpus[0]->shadow()) {
    shadow->guest().caches.tables.Clear();
  }
  {
    MutexLock lock(state.slots.slots_lock);
    state.operation_tables.Clear();
  }
  TablePool& pool = TablePool::Process();
  pool.SetMaxTables(pool.tables_out());
  const uint64_t waits = GracePeriodWaits();

  std::optional<RcuReadGuard> reader(std::in_place);
  row.unlink(*vm);
  EXPECT_GT(pool.Snapshot().in_grace_period, 4u);
  EXPECT_TRUE(pool.is_at_limit());
  Interleaving threads;
  threads.Add("operation", [&] { row.act(*vm); });
  threads.RunTo("operation", HookPoint::kGracePeriod);
  EXPECT_EQ(GracePeriodWaits(), waits + 1);
  reader.reset();
  threads.RunToEnd("operation");
  EXPECT_EQ(vm->Metrics().vcpus.fault_errors, 0u);
  pool.SetMaxTables(0);
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
        Row{"ShadowFault", MmuMode::kTdpShadow, ZapShadowPages, WriteFar},
        Row{"LoadOfAShadowRoot", MmuMode::kTdpShadow, ZapAll, WriteNear}),
    [](const auto& p) { return std::string(p.param.operation); });

// The first zap frees what the guest needs to come back; with every round the
// same tables go around.
TEST(TableLimitTest, AGuestIsZappedAtTheLimitAgainAndAgainAndIsNotLost) {
  auto vm = MakeVm({Slot(0, 0, 64 * kMiB)});
  const auto touch = [&] {
    for (uint64_t gpa = 0; gpa < 64 * kMiB; gpa += 2 * kMiB) {
      ASSERT_EQ(Write(*vm, gpa, 7), AccessOutcome::kDone);
    }
  };
  touch();
  TablePool& pool = TablePool::Process();
  pool.SetMaxTables(pool.tables_out());
  for (int round = 0; round < 20; ++round) {
    ZapAll(*vm);
    touch();
  }
  pool.SetMaxTables(0);
  EXPECT_EQ(vm->Stats().table_pages, 34u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Nothing is on its way: the guest is told, and nobody waits.
TEST(TableLimitTest, WithoutTablesInTheirGracePeriodTheLimitIsTheLimit) {
  auto vm = MakeVm({Slot(0, 0, 64 * kMiB)});
  Write(*vm, 0);
  RcuBarrier();
  vm->state().vcpus[0]->table_cache().Clear();
  TablePool& pool = TablePool::Process();
  pool.SetMaxTables(pool.tables_out());
  const uint64_t waits = GracePeriodWaits();
  EXPECT_EQ(Write(*vm, 32 * kMiB), AccessOutcome::kError);
  EXPECT_EQ(GracePeriodWaits(), waits);
  pool.SetMaxTables(0);
}

}  // namespace
}  // namespace mmu::testing
