// Accesses outside of all memslots: the MMIO information that the MMU keeps of
// them, and its lifetime.

#include <cstdint>
#include <memory>

#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/paging/mmio_spte.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vcpu/fault_handler.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kHole = kGiB;  // no slot is there

template <typename Change>
std::unique_ptr<Vm> MakeVmWith(Change change) {
  VmConfig config;
  change(config);
  config.memslots = {Slot(0, 0, 2 * kMiB)};
  return MakeVmFrom(config);
}

VcpuStatsSnapshot StatsOf(const Vm& vm, int vcpu = 0) {
  return vm.VcpuStats()[vcpu];
}

// The entry for `gpa` in the tables; kInitial if the walk ends above it.
Spte EntryFor(Vm& vm, uint64_t gpa) {
  RcuReadGuard rcu;
  const TdpRoot& root = *vm.state().vcpus[0]->root();
  TdpCursor c(root.table(), root.level(), GfnRange::Of(ToGfn(Gpa(gpa)), 1),
              Level::k4K);
  c.DescendToFirst();
  return c.old_spte();
}

uint64_t GenerationOf(Vm& vm) {
  RcuReadGuard rcu;
  return vm.state().slots.Active(0).generation();
}

// Covers: PF-24, TDP-45, STAT-25, SPTE-41
TEST(MmioTest, FirstAccessLeavesAnEntryAndIsEmulated) {
  for (const EntryFormat format : {EntryFormat::kEpt, EntryFormat::kNpt}) {
    auto vm = MakeVmWith([&](VmConfig& config) { config.format = format; });
    Read(*vm, 0);
    const VcpuStatsSnapshot before = StatsOf(*vm);
    EXPECT_EQ(Write(*vm, kHole), AccessOutcome::kEmulated);
    const VcpuStatsSnapshot since = StatsOf(*vm).Since(before);
    EXPECT_EQ(since.pf_mmio_spte_created, 1u);
    EXPECT_EQ(since.pf_taken, 1u);
    EXPECT_EQ(since.pf_emulate, 1u);
    const Spte spte = EntryFor(*vm, kHole);
    const MmioFormat& mmio = vm->state().mmio;
    ASSERT_TRUE(mmio.IsMmio(spte)) << spte;
    EXPECT_EQ(mmio.GfnOf(spte), ToGfn(Gpa(kHole)));
    EXPECT_EQ(mmio.GenerationOf(spte), GenerationOf(*vm) & kMmioGenerationMask);
    EXPECT_EQ(vm->Stats().pages_4k, 1u) << "it maps nothing";
    EXPECT_EQ(AuditFindings(*vm), "");
  }
}

// Covers: PF-02, PF-35, STAT-20
TEST(MmioTest, LaterAccessesAreEmulatedWithoutAFault) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)}, 2);
  Write(*vm, kHole, 1, 0);
  const VcpuStatsSnapshot before = StatsOf(*vm, 1);
  LockTrace trace;
  // The first read of this vCPU finds the MMIO SPTE. The second uses its MMIO
  // cache and looks at no SPTE.
  EXPECT_EQ(Read(*vm, kHole, 1), AccessOutcome::kEmulated);
  EXPECT_EQ(trace.CountOf(HookPoint::kMmioToCompare), 1);
  EXPECT_TRUE(vm->state().vcpus[1]->mmio_cache().Matches(ToGfn(Gpa(kHole)),
                                                         GenerationOf(*vm)));
  EXPECT_EQ(Read(*vm, kHole, 1), AccessOutcome::kEmulated);
  EXPECT_EQ(trace.CountOf(HookPoint::kMmioToCompare), 1);
  const VcpuStatsSnapshot since = StatsOf(*vm, 1).Since(before);
  EXPECT_EQ(since.pf_taken, 0u);
  EXPECT_EQ(since.pf_mmio_spte_created, 0u);
}

// Covers: SPTE-43, PF-35
TEST(MmioTest, AnySlotChangeMakesTheEntryOutOfDate) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  Write(*vm, kHole);
  ASSERT_TRUE(vm->SetMemslot(Slot(1, 4 * kGiB, 2 * kMiB)).ok());
  const VcpuStatsSnapshot before = StatsOf(*vm);
  EXPECT_EQ(Write(*vm, kHole), AccessOutcome::kEmulated);
  EXPECT_EQ(StatsOf(*vm).Since(before).pf_mmio_spte_created, 1u);
  EXPECT_EQ(vm->state().mmio.GenerationOf(EntryFor(*vm, kHole)),
            GenerationOf(*vm) & kMmioGenerationMask);
  EXPECT_EQ(Write(*vm, kHole), AccessOutcome::kEmulated);
  EXPECT_EQ(StatsOf(*vm).Since(before).pf_mmio_spte_created, 1u);
}

// Covers: PF-36
TEST(MmioTest, SlotOverAHoleIsMemoryAtOnce) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  Write(*vm, kHole);
  ASSERT_TRUE(vm->SetMemslot(Slot(1, kHole, 2 * kMiB)).ok());
  EXPECT_EQ(Write(*vm, kHole, 7), AccessOutcome::kDone);
  EXPECT_EQ(ReadValue(*vm, kHole), 7u);
  EXPECT_FALSE(vm->state().mmio.IsMmio(EntryFor(*vm, kHole)));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Another hole becomes memory, of which an MMIO SPTE is left.
// Covers: PF-35
TEST(MmioTest, WhatIsRememberedIsAboutOnePage) {
  constexpr uint64_t kOther = kHole + 4 * kMiB;
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  EXPECT_EQ(Write(*vm, kOther), AccessOutcome::kEmulated);
  ASSERT_TRUE(vm->SetMemslot(Slot(1, kOther, 2 * kMiB)).ok());
  EXPECT_EQ(Write(*vm, kHole), AccessOutcome::kEmulated);
  EXPECT_EQ(Write(*vm, kOther), AccessOutcome::kDone);
}

// Covers: PF-36
TEST(MmioTest, ANewRootForgetsWhatWasRemembered) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  Write(*vm, kHole);
  Vcpu& vcpu = *vm->state().vcpus[0];
  EXPECT_TRUE(vcpu.mmio_cache().Matches(ToGfn(Gpa(kHole)), GenerationOf(*vm)));
  vcpu.ReleaseRoot();
  EXPECT_FALSE(vcpu.mmio_cache().Matches(ToGfn(Gpa(kHole)), GenerationOf(*vm)));
}

// Covers: SPTE-43, SLOT-22
TEST(MmioTest, WhileASwapGoesOnNothingIsCachedOrBelieved) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  Write(*vm, kHole);
  VmState& state = vm->state();
  Vcpu& vcpu = *state.vcpus[0];
  const uint64_t generation = GenerationOf(*vm);
  const Gfn gfn = ToGfn(Gpa(kHole));
  {
    MutexLock lock(state.slots.slots_lock);
    state.slots.SetGenerationForTest(0, generation | kGenerationInProgress);
  }
  EXPECT_FALSE(vcpu.mmio_cache().Matches(gfn, GenerationOf(*vm)));
  const VcpuStatsSnapshot before = StatsOf(*vm);
  EXPECT_EQ(Write(*vm, kHole), AccessOutcome::kEmulated);
  EXPECT_EQ(StatsOf(*vm).Since(before).pf_taken, 1u) << "the long way";
  EXPECT_EQ(Write(*vm, kHole + kPageSize), AccessOutcome::kEmulated);
  EXPECT_FALSE(state.mmio.IsMmio(EntryFor(*vm, kHole + kPageSize)));
  EXPECT_EQ(StatsOf(*vm).Since(before).pf_mmio_spte_created, 0u);
  MutexLock lock(state.slots.slots_lock);
  state.slots.SetGenerationForTest(0, generation);
}

// Two vCPUs access the same place. The fault that comes too late with its SPTE
// retries, and finds the one of the other.
// Covers: TDP-42
TEST(MmioTest, AFaultThatLosesItsEntryRetries) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)}, 2);
  for (const int vcpu : {0, 1}) Write(*vm, kHole + kPageSize, 1, vcpu);
  const VcpuStatsSnapshot before = StatsOf(*vm);
  AccessOutcome outcome = AccessOutcome::kDone;
  Interleaving threads;
  threads.Add("loser", [&] { outcome = Write(*vm, kHole, 1, 0); });
  threads.RunTo("loser", HookPoint::kSnapshotToExchange);
  EXPECT_EQ(Write(*vm, kHole, 1, 1), AccessOutcome::kEmulated);
  threads.RunToEnd("loser");
  EXPECT_EQ(outcome, AccessOutcome::kEmulated);
  EXPECT_EQ(StatsOf(*vm).Since(before).pf_retried, 1u);
  EXPECT_EQ(StatsOf(*vm).Since(before).pf_mmio_spte_created, 0u);
  EXPECT_EQ(StatsOf(*vm, 1).pf_mmio_spte_created, 1u);
}

// Covers: SPTE-44
TEST(MmioTest, WhenTheGenerationWrapsEverythingIsZapped) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(0), 1));
  VmState& state = vm->state();
  {
    MutexLock lock(state.slots.slots_lock);
    state.slots.SetGenerationForTest(0, kMmioGenerationMask + 1 - 4);
  }
  const TdpRoot* root = state.vcpus[0]->root();
  // After one swap the generation is two steps before the wrap.
  ASSERT_TRUE(vm->SetMemslot(Slot(1, 4 * kGiB, 2 * kMiB)).ok());
  EXPECT_FALSE(root->IsInvalid());
  EXPECT_EQ(vm->Stats().pages_4k, 1u);
  // The next swap wraps the generation.
  ASSERT_TRUE(vm->SetMemslot(Slot(2, 5 * kGiB, 2 * kMiB)).ok());
  EXPECT_TRUE(root->IsInvalid());
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  EXPECT_EQ(Read(*vm, 0), AccessOutcome::kDone);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SPTE-45
TEST(MmioTest, WithoutCachingOrBeyondTheHostEachAccessIsAFault) {
  const auto expect_no_entry = [](Vm& vm, uint64_t gpa) {
    for (int i = 1; i <= 2; ++i) {
      const VcpuStatsSnapshot before = StatsOf(vm);
      EXPECT_EQ(Write(vm, gpa), AccessOutcome::kEmulated);
      EXPECT_EQ(StatsOf(vm).Since(before).pf_taken, 1u);
      EXPECT_EQ(StatsOf(vm).pf_mmio_spte_created, 0u);
    }
    EXPECT_FALSE(vm.state().mmio.IsMmio(EntryFor(vm, gpa)));
  };
  auto off = MakeVmWith([](VmConfig& config) {
    config.mmio_caching = VmConfig::MmioCaching::kNo;
  });
  expect_no_entry(*off, kHole);
  auto small_host =
      MakeVmWith([](VmConfig& config) { config.host_address_bits = 36; });
  expect_no_entry(*small_host, uint64_t{1} << 36);
  // NPT has no reserved address bit on such a host.
  auto full_host = MakeVmWith([](VmConfig& config) {
    config.format = EntryFormat::kNpt;
    config.host_address_bits = 52;
  });
  expect_no_entry(*full_host, kHole);
}

// Covers: PF-35
TEST(MmioTest, EntryThatWasReplacedSinceTheWalkIsTriedAgain) {
  auto vm = MakeVm({Slot(0, 0, 2 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(3), 1));
  EXPECT_EQ(HandleMmioFault(vm->state(), *vm->state().vcpus[0], Gfn(3)),
            FaultResult::kRetry);
}

}  // namespace
}  // namespace mmu::testing
