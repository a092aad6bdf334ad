#include "mmu_core/vm/vcpu/fault_handler.h"

#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AllMappings;
using ::mmu::testing::AuditFindings;
using ::mmu::testing::LevelOf;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::Mapping;
using ::mmu::testing::Read;
using ::mmu::testing::Slot;
using ::mmu::testing::SpteOf;
using ::mmu::testing::StartLog;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

FaultResult Fault(Vm& vm, Gfn gfn, AccessKind kind = AccessKind::kWrite,
                  bool present = false, int vcpu = 0) {
  const absl::StatusOr<FaultResult> result =
      HandleFault(vm.state(), *vm.state().vcpus[vcpu], gfn, kind, present);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.value_or(FaultResult::kContinue);
}

void LoadRoot(Vm& vm, uint64_t gpa) { Read(vm, gpa); }

// Handles a fault of vCPU 0 on `gfn`. Runs `meanwhile` when the fault has found
// its frame and waits for mmu_lock. Returns the fault's result.
FaultResult FaultAround(Vm& vm, Gfn gfn,
                        absl::FunctionRef<void(MmuWriteLocked&)> meanwhile) {
  FaultResult result = FaultResult::kContinue;
  std::thread faulter;
  {
    MmuWriteLocked lock(vm.state().mmu_lock, LockOp::kZap);
    faulter = std::thread([&] { result = Fault(vm, gfn); });
    while (!lock.NeedYield()) std::this_thread::yield();
    meanwhile(lock);
  }
  faulter.join();
  return result;
}

// Covers: PF-03, PF-02
TEST(FaultHandlerTest, WithoutARootTheGuestRetriesAndNothingIsCounted) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  EXPECT_EQ(Fault(*vm, Gfn(1)), FaultResult::kRetry);
  const VcpuStatsSnapshot stats = vm->VcpuStats()[0];
  EXPECT_EQ(stats.pf_taken, 1u);
  EXPECT_EQ(stats.pf_fixed + stats.pf_emulate + stats.pf_spurious, 0u);
  EXPECT_EQ(stats.pf_fast, 0u);
}

// Covers: PF-05, TDP-09
TEST(FaultHandlerTest, ARootInvalidatedWhileTheFaultWaitsForTheLockIsNotUsed) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  LoadRoot(*vm, 0);
  const TdpRoot* old_root = vm->state().vcpus[0]->root();
  EXPECT_EQ(
      FaultAround(
          *vm, Gfn(9),
          [&](MmuWriteLocked&) {
            const_cast<RootList&>(vm->state().tdp.roots()).InvalidateAll();
          }),
      FaultResult::kRetry);
  EXPECT_TRUE(old_root->IsInvalid());
  EXPECT_EQ(vm->Stats().pages_4k, 1u) << "only what was there before";
  // The access gets a new root and succeeds.
  EXPECT_EQ(Write(*vm, 9 * kPageSize), AccessOutcome::kDone);
}

// Covers: PF-25, PF-21
TEST(FaultHandlerTest, AnInvalidationAroundTheLookUpMakesTheFaultRetryOnce) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  LoadRoot(*vm, 0);
  InvalidationGate& gate = vm->state().invalidations;
  EXPECT_EQ(FaultAround(*vm, Gfn(9),
                        [&](MmuWriteLocked&) {
                          // The invalidation is of another page, and ends
                          // before the fault looks.
                          gate.Begin();
                          gate.AddRange(GfnRange::Of(Gfn(100), 1));
                          gate.End();
                        }),
            FaultResult::kRetry);
  EXPECT_EQ(SpteOf(vm->state(), Gfn(9)), Spte());
  EXPECT_EQ(Fault(*vm, Gfn(9)), FaultResult::kFixed);
}

// Covers: PF-25, PF-26
TEST(FaultHandlerTest, PagesInTheRangeOfOpenInvalidationsAreNotMapped) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  LoadRoot(*vm, 0);
  InvalidationGate& gate = vm->state().invalidations;
  const auto begin = [&](uint64_t gfn) {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kNotifier);
    gate.Begin();
    gate.AddRange(GfnRange::Of(Gfn(gfn), 2));
  };
  const auto end = [&] {
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kNotifier);
    gate.End();
  };
  begin(10);
  EXPECT_EQ(Fault(*vm, Gfn(10)), FaultResult::kRetry);
  EXPECT_EQ(Fault(*vm, Gfn(12)), FaultResult::kFixed);
  begin(20);  // the gap between the two ranges retries as well
  EXPECT_EQ(Fault(*vm, Gfn(15)), FaultResult::kRetry);
  EXPECT_EQ(Fault(*vm, Gfn(22)), FaultResult::kFixed);
  end();
  EXPECT_EQ(Fault(*vm, Gfn(10)), FaultResult::kRetry);
  EXPECT_EQ(Fault(*vm, Gfn(15)), FaultResult::kRetry);
  end();
  EXPECT_EQ(Fault(*vm, Gfn(10)), FaultResult::kFixed);
  EXPECT_EQ(Fault(*vm, Gfn(15)), FaultResult::kFixed);
}

// Covers: PF-23
TEST(FaultHandlerTest, AWriteToAReadOnlySlotIsEmulatedAndMapsNothing) {
  MemslotConfig readonly = Slot(0, 0, kMiB);
  readonly.mode = MemslotConfig::Mode::kReadOnly;
  auto vm = MakeVm({readonly});
  EXPECT_EQ(Write(*vm, 0x1000), AccessOutcome::kEmulated);
  EXPECT_THAT(AllMappings(vm->state()), IsEmpty());
  EXPECT_EQ(Read(*vm, 0x1000), AccessOutcome::kDone);
  EXPECT_EQ(Write(*vm, 0x1000), AccessOutcome::kEmulated);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{1, Level::k4K, "ra"}));
  EXPECT_EQ(vm->VcpuStats()[0].pf_emulate, 2u);
}

TEST(FaultHandlerTest, AnAccessOutsideAllSlotsIsEmulatedUntilASlotComes) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  EXPECT_EQ(Read(*vm, kGiB), AccessOutcome::kEmulated);
  ASSERT_TRUE(vm->SetMemslot(Slot(1, kGiB, kMiB)).ok());
  EXPECT_EQ(Read(*vm, kGiB), AccessOutcome::kDone);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(kGiB >> kPageShift)), Level::k4K);
}

// Covers: PF-30, SLOT-44
TEST(FaultHandlerTest, APageIsMappedAsLargeAsSlotHostAndAlignmentAllow) {
  auto vm = MakeVm({
      Slot(0, 0, 4 * kMiB, Level::k4K),            // the host has small pages
      Slot(1, kGiB, 4 * kMiB, Level::k2M),         // 2 MiB
      Slot(2, 2 * kGiB, 2 * kGiB, Level::k1G),     // 1 GiB
      Slot(3, 8 * kGiB, kGiB + kMiB, Level::k1G),  // a tail of 1 MiB
  });
  const auto level = [&](uint64_t gpa) {
    Read(*vm, gpa);
    return LevelOf(vm->state(), ToGfn(Gpa(gpa)));
  };
  EXPECT_EQ(level(0x1000), Level::k4K);
  EXPECT_EQ(level(kGiB + 3 * kMiB), Level::k2M);
  EXPECT_EQ(level(3 * kGiB + 5), Level::k1G);
  EXPECT_EQ(level(8 * kGiB), Level::k1G);
  EXPECT_EQ(level(9 * kGiB), Level::k4K);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: PF-30, SLOT-54
TEST(FaultHandlerTest, ALoggedSlotIsMappedSmall) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  Touch(*vm, GfnRange::Of(Gfn(510), 4));
  EXPECT_EQ(vm->Stats().pages_4k, 4u);
  EXPECT_EQ(vm->Stats().pages_2m, 0u);
}

// Covers: PF-31, TRM-03
TEST(FaultHandlerTest, NoPageIsLargerThanTheHardwareHas) {
  for (const Level max : {Level::k4K, Level::k2M, Level::k1G}) {
    VmConfig config;
    config.max_page_level = max;
    config.memslots = {Slot(0, 0, kGiB, Level::k1G)};
    const auto vm = MakeVmFrom(config);
    Read(*vm, 5 * kMiB);
    EXPECT_EQ(LevelOf(vm->state(), Gfn(5 * 256)), max);
  }
}

// Covers: PF-40, STAT-23
TEST(FaultHandlerTest, OfSeveralVcpusOnOnePageOneFixesAndTheRestAreSpurious) {
  auto vm = MakeVm({Slot(0, 0, kMiB)}, 3);
  for (int i = 0; i < 3; ++i) Read(*vm, 0x8000, i);
  EXPECT_EQ(Fault(*vm, Gfn(1), AccessKind::kWrite, false, 0),
            FaultResult::kFixed);
  EXPECT_EQ(Fault(*vm, Gfn(1), AccessKind::kWrite, false, 1),
            FaultResult::kSpurious);
  EXPECT_EQ(Fault(*vm, Gfn(1), AccessKind::kRead, false, 2),
            FaultResult::kSpurious);
  EXPECT_EQ(vm->VcpuStats()[1].pf_spurious, 1u);
  EXPECT_EQ(vm->VcpuStats()[2].pf_spurious, 1u);
  EXPECT_EQ(vm->VcpuStats()[1].pf_fast, 0u);
  EXPECT_EQ(vm->Stats().pages_4k, 2u);
}

// Covers: PF-17, STAT-24
TEST(FaultHandlerTest, AFastFaultOnAnEntryThatAllowsTheWriteIsSpurious) {
  auto vm = MakeVm({Slot(0, 0, kMiB)}, 2);
  Write(*vm, 0x1000, 1, 0);
  Read(*vm, 0x2000, 1);
  EXPECT_EQ(Fault(*vm, Gfn(1), AccessKind::kWrite, true, 1),
            FaultResult::kSpurious);
  EXPECT_EQ(vm->VcpuStats()[1].pf_fast, 1u);
  EXPECT_EQ(vm->VcpuStats()[1].pf_spurious, 1u);
}

// Covers: TDP-43, LCK-01
TEST(FaultHandlerTest, AFaultHasItsTablesBeforeItTakesTheLock) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  LoadRoot(*vm, 0);
  vm->state().vcpus[0]->table_cache().Clear();
  // The new slot is below another entry of the root, so all tables for it are
  // missing. No table is available from the moment when the fault waits for the
  // lock.
  ASSERT_TRUE(vm->SetMemslot(Slot(1, uint64_t{1} << 40, kMiB)).ok());
  EXPECT_EQ(FaultAround(
                *vm, Gfn(uint64_t{1} << 28),
                [](MmuWriteLocked&) { TablePool::Process().SetMaxTables(1); }),
            FaultResult::kFixed);
  TablePool::Process().SetMaxTables(0);
}

// Covers: PF-40
TEST(FaultHandlerTest, ManyVcpusFaultingOnTheSamePagesMapEachOnce) {
  constexpr int kVcpus = 4;
  auto vm = MakeVm({Slot(0, 0, 8 * kMiB)}, kVcpus);
  std::vector<std::thread> threads;
  for (int i = 0; i < kVcpus; ++i) {
    threads.emplace_back([&vm, i] {
      Touch(*vm, GfnRange::Of(Gfn(0), 2048), AccessKind::kWrite, i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(vm->Stats().pages_4k, 2048u);
  uint64_t fixed = 0;
  for (const VcpuStatsSnapshot& stats : vm->VcpuStats()) {
    EXPECT_GE(stats.pf_taken,
              stats.pf_fixed + stats.pf_emulate + stats.pf_spurious);
    fixed += stats.pf_fixed;
  }
  EXPECT_EQ(fixed, 2048u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu
