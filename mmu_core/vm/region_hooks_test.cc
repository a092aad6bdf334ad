// The effects of memslot changes on a VM's tables.

#include "mmu_core/vm/slots/region_hooks.h"

#include <cerrno>
#include <cstdint>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/hold_clock.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vcpu/fault_handler.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AllMappings;
using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::ClearLog;
using ::mmu::testing::LevelOf;
using ::mmu::testing::MakePmlVm;
using ::mmu::testing::MakeRingVm;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::Mapping;
using ::mmu::testing::MaskOf;
using ::mmu::testing::Read;
using ::mmu::testing::ReadValue;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::StartLog;
using ::mmu::testing::StillHoldClock;
using ::mmu::testing::StopLog;
using ::mmu::testing::TestCall;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

uint64_t Generation(const Vm& vm) { return vm.Memslots().at(0).generation; }

// A request that changes the flags of slot `id`, or deletes it (0 bytes).
RegionRequest ChangeOf(VmState& vm, uint32_t id, uint32_t flags, uint64_t bytes)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  const Memslot* slot = vm.slots.Active(0).FindById(id);
  RegionRequest request;
  request.slot = id;
  request.flags = flags;
  request.gpa = ToGpa(slot->base_gfn);
  request.size_bytes = bytes;
  request.userspace_addr = slot->hva;
  return request;
}

// Covers: SLOT-28
TEST(RegionHooksTest, DeletingASlotZapsTheWholeVmQuirk) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  Write(*vm, 0x1000, 5);
  Write(*vm, kGiB);
  ASSERT_TRUE(vm->SetMemslot(Slot(1, kGiB, 0)).ok());
  EXPECT_THAT(AllMappings(vm->state()), IsEmpty());
  // The other slot faults again and has kept its contents.
  const uint64_t taken = vm->VcpuStats()[0].pf_taken;
  EXPECT_EQ(ReadValue(*vm, 0x1000), 5u);
  EXPECT_GT(vm->VcpuStats()[0].pf_taken, taken);
  EXPECT_EQ(Read(*vm, kGiB), AccessOutcome::kEmulated);
}

std::unique_ptr<Vm> MakeSlotZapVm(std::vector<MemslotConfig> slots) {
  VmConfig config;
  config.slot_zap = VmConfig::SlotZap::kSlot;
  config.memslots = std::move(slots);
  return MakeVmFrom(config);
}

// Covers: SLOT-28
TEST(RegionHooksTest, WithoutTheQuirkADeletedSlotTakesItsOwnLeafsOnly) {
  auto vm = MakeSlotZapVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  Write(*vm, 0x1000, 5);
  Write(*vm, kGiB);
  const uint64_t flushes = vm->Stats().flush.remote_tlb_flush_requests;
  ASSERT_TRUE(vm->SetMemslot(Slot(1, kGiB, 0)).ok());
  EXPECT_EQ(vm->Stats().flush.remote_tlb_flush_requests, flushes + 1);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{1, Level::k4K, "rwad"}));
  const uint64_t taken = vm->VcpuStats()[0].pf_taken;
  EXPECT_EQ(ReadValue(*vm, 0x1000), 5u);
  EXPECT_EQ(vm->VcpuStats()[0].pf_taken, taken);
  EXPECT_EQ(Read(*vm, kGiB), AccessOutcome::kEmulated);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SLOT-28
TEST(RegionHooksTest, WithoutTheQuirkAnUntouchedSlotGoesWithoutAFlush) {
  auto vm = MakeSlotZapVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  Write(*vm, 0x1000);
  const uint64_t flushes = vm->Stats().flush.remote_tlb_flush_requests;
  ASSERT_TRUE(vm->SetMemslot(Slot(1, kGiB, 0)).ok());
  EXPECT_EQ(vm->Stats().flush.remote_tlb_flush_requests, flushes);
}

// Covers: SLOT-28, SLOT-27
TEST(RegionHooksTest, WithoutTheQuirkAMovedSlotIsMappedAtItsNewPlaceOnly) {
  auto vm = MakeSlotZapVm(
      {Slot(0, 0, 4 * kMiB, Level::k2M), Slot(1, kGiB, 4 * kMiB)});
  Write(*vm, 0x1008, 5);
  Write(*vm, kGiB);
  // The guest accesses the new place before there is memory.
  EXPECT_EQ(Read(*vm, 2 * kGiB + 0x1008), AccessOutcome::kEmulated);
  ASSERT_TRUE(vm->SetMemslot(Slot(0, 2 * kGiB, 4 * kMiB, Level::k2M)).ok());
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{kGiB >> kPageShift, Level::k4K, "rwad"}));
  EXPECT_EQ(Read(*vm, 0x1008), AccessOutcome::kEmulated);
  EXPECT_EQ(ReadValue(*vm, 2 * kGiB + 0x1008), 5u);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(2 * kGiB >> kPageShift)), Level::k2M);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SLOT-27, SLOT-25, SLOT-11
TEST(RegionHooksTest, AMovedSlotIsMappedAnewAtItsNewPlaceWithItsContents) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0x1008, 5);
  const uint64_t generation = Generation(*vm);
  ASSERT_TRUE(vm->SetMemslot(Slot(0, kGiB, 4 * kMiB, Level::k2M)).ok());
  EXPECT_EQ(Generation(*vm), generation + 4);
  EXPECT_THAT(AllMappings(vm->state()), IsEmpty());
  EXPECT_EQ(Read(*vm, 0x1008), AccessOutcome::kEmulated);
  EXPECT_EQ(ReadValue(*vm, kGiB + 0x1008), 5u);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(kGiB >> kPageShift)), Level::k2M);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SLOT-27
TEST(RegionHooksTest, AMoveOffTheHugePageGridForbidsHugePages) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  ASSERT_TRUE(
      vm->SetMemslot(Slot(0, kGiB + kPageSize, 4 * kMiB, Level::k2M)).ok());
  Write(*vm, kGiB + 2 * kMiB);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{(kGiB + 2 * kMiB) >> kPageShift, Level::k4K,
                                  "rwad"}));
}

// Covers: SLOT-27
TEST(RegionHooksTest, ALogSurvivesTheMoveOfItsSlot) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  Write(*vm, 0x3000);
  ASSERT_TRUE(vm->SetMemslot(Slot(0, kGiB, 4 * kMiB)).ok());
  EXPECT_TRUE(vm->Memslots()[0].dirty_log_enabled);
  Write(*vm, kGiB + 0x5000);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(3, 5));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: SLOT-26, SLOT-27
TEST(RegionHooksTest, SwitchingALogKeepsTheMappings) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(0), 3));
  const uint64_t generation = Generation(*vm);
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  EXPECT_EQ(Generation(*vm), generation + 2);
  EXPECT_EQ(vm->Stats().pages_4k, 3u);
}

TEST(RegionHooksTest, ADeletedSlotTakesItsPagesAlong) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm).ok());
  ASSERT_TRUE(vm->SetMemslot(Slot(1, kGiB, 0)).ok());
  EXPECT_EQ(vm->FindDirtyLog()->state.slots.size(), 1u);
  EXPECT_EQ(vm->state().dirty_log.FindSlot(1), nullptr);
}

// No client has the contents of new memory, so all its pages are dirty.
TEST(RegionHooksTest, ASlotThatIsMadeWhileTheVmLogsJoinsWithAllOfItsPages) {
  const auto expect = [](std::unique_ptr<Vm> vm, const char* kind) {
    SCOPED_TRACE(kind);
    ASSERT_TRUE(StartLog(*vm).ok());
    Write(*vm, 0x3000);
    uint64_t before = 0;
    SealAndList(*vm, 0, &before);
    ASSERT_TRUE(vm->SetMemslot(Slot(1, kGiB, 64 * kPageSize)).ok());
    EXPECT_TRUE(vm->FindMemslot(0, 1)->dirty_log_enabled);
    EXPECT_EQ(vm->CountUndelivered(),
              (UndeliveredCounts{.open = 64, .sealed = 1}));
    EXPECT_EQ(
        DetailOf(ClearLog(*vm, 1, before, 0, 64, MaskOf(64, {0})).status())
            .reason,
        Reason::kEpochMismatch);
    uint64_t epoch = 0;
    const std::vector<uint64_t> all = SealAndList(*vm, 1, &epoch);
    EXPECT_EQ(all.size(), 64u);
    ASSERT_TRUE(ClearAndDeliver(*vm, 1, epoch, 0, 64, MaskOf(64, all)).ok());
    Write(*vm, kGiB + 0x5000);
    EXPECT_THAT(SealAndList(*vm, 1), ElementsAre(5));
    EXPECT_EQ(AuditFindings(*vm), "");
  };
  expect(MakeVm({Slot(0, 0, 4 * kMiB)}), "bitmap");
  expect(MakeRingVm({Slot(0, 0, 4 * kMiB)}, 256), "ring");
  expect(MakePmlVm({Slot(0, 0, 4 * kMiB)}), "pml");
}

TEST(RegionHooksTest, ASlotStaysOutOfALogThatWantsNoneOrIfItCannotBeWritten) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  MemslotConfig rom = Slot(2, 2 * kGiB, kMiB);
  rom.mode = MemslotConfig::Mode::kReadOnly;
  ASSERT_TRUE(StartLog(*vm).ok());
  ASSERT_TRUE(vm->SetMemslot(rom).ok());
  EXPECT_FALSE(vm->FindMemslot(0, 2)->dirty_log_enabled);
  ASSERT_TRUE(StopLog(*vm).ok());
  DirtyLogConfig config;
  config.new_memslots = DirtyLogConfig::NewMemslots::kLeave;
  ASSERT_TRUE(StartLog(*vm, config).ok());
  ASSERT_TRUE(vm->SetMemslot(Slot(1, kGiB, kMiB)).ok());
  EXPECT_FALSE(vm->FindMemslot(0, 1)->dirty_log_enabled);
  EXPECT_EQ(vm->FindDirtyLog()->state.slots.size(), 1u);
}

// The pages in flight were copied from the slot's old place.
TEST(RegionHooksTest, AMoveSealsAgainWhatIsInFlightAndEndsTheEpochForItsSlot) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm).ok());
  Write(*vm, 0x3000);
  Write(*vm, 0x4000);
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  ASSERT_TRUE(ClearLog(*vm, 0, epoch, 0, 64, MaskOf(64, {3})).ok());
  ASSERT_TRUE(vm->SetMemslot(Slot(0, kGiB, 4 * kMiB)).ok());
  EXPECT_EQ(vm->CountUndelivered(), UndeliveredCounts{.sealed = 2});
  EXPECT_EQ(
      DetailOf(ClearLog(*vm, 0, epoch, 0, 64, MaskOf(64, {4})).status()).reason,
      Reason::kEpochMismatch);
  EXPECT_EQ(vm->AcknowledgePages(TestCall(), epoch)->acknowledged_page_count,
            0u);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(3, 4));
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(RegionHooksTest, WhatADeletionHoldsTheLockForIsBookedUnderMemslot) {
  const StillHoldClock clock;
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)});
  Write(*vm, 0x1000);
  const auto acquisitions = [&vm](LockMode mode) {
    return vm->Stats().lock.at(mode, LockOp::kMemslot).acquisitions;
  };
  EXPECT_EQ(acquisitions(LockMode::kWrite), 0u);
  ASSERT_TRUE(vm->SetMemslot(Slot(1, kGiB, 0)).ok());
  EXPECT_EQ(acquisitions(LockMode::kWrite), 1u);
  EXPECT_EQ(acquisitions(LockMode::kRead), 1u);
}

// Handles a fault in the middle of a change.
class ProbingHooks : public RegionHooks {
 public:
  ProbingHooks(Vm& vm, Gfn gfn)
      : RegionHooks(vm.state(), nullptr), vm_(vm), gfn_(gfn) {}
  void FlushShadowSlot(const Memslot& old_slot) override {
    result_ = *HandleFault(vm_.state(), *vm_.state().vcpus[0], gfn_,
                           AccessKind::kWrite, /*present=*/false);
    RegionHooks::FlushShadowSlot(old_slot);
  }

  FaultResult result() const { return result_; }

 private:
  Vm& vm_;
  const Gfn gfn_;
  FaultResult result_ = FaultResult::kContinue;
};

// Covers: PF-20, SLOT-25
TEST(RegionHooksTest, AFaultOnASlotThatIsGoingAwayRetriesAndMapsNothing) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Read(*vm, 0x1000);
  ProbingHooks hooks(*vm, Gfn(7));
  VmState& state = vm->state();
  {
    MutexLock lock(state.slots.slots_lock);
    ASSERT_TRUE(state.slots.SetRegion(ChangeOf(state, 0, 0, 0), hooks).ok());
  }
  EXPECT_EQ(hooks.result(), FaultResult::kRetry);
  EXPECT_THAT(AllMappings(state), IsEmpty());
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
}

// Covers: DL-01
TEST(RegionHooksTest, ASlotThatIsCreatedLoggingNeedsNoWork) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  VmState& state = vm->state();
  DirtyLogConfig config;
  config.split = SplitPolicy::kEager;
  MmuCost cost;
  RegionHooks hooks(state, &cost, config);
  {
    MutexLock lock(state.slots.slots_lock);
    auto backing = state.memory.Allocate({.kind = BackingKind::kAnonymous,
                                          .size_bytes = 4 * kMiB,
                                          .host_page_level = Level::k2M});
    ASSERT_TRUE(backing.ok());
    RegionRequest request;
    request.slot = 5;
    request.flags = kMemslotLogDirtyPages;
    request.gpa = Gpa(kGiB);
    request.size_bytes = 4 * kMiB;
    request.userspace_addr = (*backing)->hva();
    request.backing = *backing;
    ASSERT_TRUE(state.slots.SetRegion(request, hooks).ok());
  }
  EXPECT_EQ(cost.tlb_flush_count, 0);
  EXPECT_EQ(cost.sptes_visited_count, 0);
  EXPECT_EQ(vm->Stats().Splits(Level::k2M, SplitTrigger::kEager), 0u);
  // New faults map small pages and mark.
  Write(*vm, kGiB + 0x1000);
  EXPECT_EQ(vm->Stats().pages_4k, 1u);
  RcuReadGuard reader;
  EXPECT_TRUE(state.slots.Active(0).FindById(5)->dirty_bitmap->Test(1));
}

// Covers: TDP-09, TDP-37
TEST(RegionHooksTest, OnlyUnmappingSeesInvalidRoots) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  VmState& state = vm->state();
  const GfnRange range = GfnRange::Of(Gfn(0), 1024);
  const TdpRoot& root = *state.vcpus[0]->root();
  const auto leaf = [&]() -> Spte {
    RcuReadGuard rcu;
    Spte found;
    for (TdpCursor c(root.table(), root.level(), GfnRange::Of(Gfn(0), 1),
                     Level::k4K);
         c.Valid(); c.Next()) {
      if (c.IsPresentLeaf()) found = c.old_spte();
    }
    return found;
  };
  const Spte before = leaf();
  {
    MmuWriteLocked lock(state.mmu_lock, LockOp::kZap);
    const_cast<RootList&>(state.tdp.roots()).InvalidateAll();
  }
  {
    MutexLock slots(state.slots.slots_lock);
    MmuReadLocked lock(state.mmu_lock, LockOp::kEnable);
    EXPECT_FALSE(state.tdp.WriteProtect(lock, 0, range, Level::k4K, nullptr));
    EXPECT_FALSE(state.tdp.ClearDirty(lock, 0, range, nullptr));
    EXPECT_EQ(state.tdp
                  .Split(lock, 0, range, Level::k4K, SplitTrigger::kRequest,
                         state.operation_tables, 0, nullptr)
                  .split_2m_count,
              0);
  }
  EXPECT_EQ(vm->Age(range, AgeMode::kTestAndClear, nullptr)->young_page_count,
            0u);
  EXPECT_EQ(vm->RecoverHugePages({}, nullptr)->to_2m_count, 0u);
  {
    MmuWriteLocked lock(state.mmu_lock, LockOp::kZap);
    EXPECT_FALSE(state.tdp.WriteProtectGfn(lock, 0, Gfn(0), Level::k4K));
    EXPECT_FALSE(state.tdp.ZapLeafs(lock, 0, range, RootFilter::kValid,
                                    FlushReason::kZap, nullptr));
    EXPECT_EQ(leaf(), before);
    EXPECT_TRUE(state.tdp.ZapLeafs(lock, 0, range, RootFilter::kAll,
                                   FlushReason::kNotifier, nullptr));
    EXPECT_EQ(leaf(), Spte());
  }
  // No vCPU can use this root, so no flush was needed (TLB-07).
  EXPECT_EQ(vm->Stats().flush.remote_tlb_flush_requests, 0u);
}

}  // namespace
}  // namespace mmu
