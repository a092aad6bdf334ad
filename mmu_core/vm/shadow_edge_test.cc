// Rare sequences of events in VMs on shadow pages.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/guest/pattern_spec.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/memory/guest_memory_access.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/fault_injection.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/shadowed_guest_test_util.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/noted_pages.h"
#include "mmu_core/vm/logging/dirty_rings.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/slots/region_hooks.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu::testing {
namespace {

using ::testing::HasSubstr;

class EdgeTest : public ::testing::Test, protected ShadowedGuest {
 protected:
  using ShadowedGuest::Run;
};

// Covers: SHD-33
TEST_F(EdgeTest, ASyncOfAWholeTableDoesNotFillTheDirtyRing) {
  VmConfig config;
  config.dirty_ring_entries = 256;
  Make(config, kReadOnly);
  ASSERT_TRUE(StartLog(*vm_, {}, nullptr).ok());
  for (uint64_t i = 0; i < 512; ++i) {
    ASSERT_EQ(ReadAt(i * kPageSize), AccessOutcome::kDone);
  }
  for (uint64_t i = 0; i < 512; ++i) {
    ASSERT_EQ(Store(4, i, Entry(0x1000 + i, kWritable)), AccessOutcome::kDone);
  }
  const uint32_t used = vm_->state().vcpus[0]->dirty_ring()->used();
  shadow().SetRoot({.table = Gfn(1)}, ShadowVcpu::Flush::kYes);
  EXPECT_EQ(vm_->state().vcpus[0]->dirty_ring()->used(), used)
      << "nobody has written to these pages";
  // The first write after the sync marks its page.
  ASSERT_EQ(Access(0, AccessKind::kWrite, 7), AccessOutcome::kDone);
  EXPECT_EQ(vm_->state().vcpus[0]->dirty_ring()->used(), used + 1);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// All shadow pages go out of use while a fault has resolved its frame. The
// fault maps nothing below the old root.
// Covers: PF-05
TEST_F(EdgeTest, Race36AFaultFindsItsRootObsoleteUnderTheLock) {
  Make({}, kWritable);
  ASSERT_EQ(ReadAt(0), AccessOutcome::kDone);
  const VcpuStatsSnapshot before = vm_->VcpuStats()[0];
  AccessOutcome outcome = AccessOutcome::kError;
  Interleaving threads;
  threads.Add("fault", [&] { outcome = ReadAt(300 * kPageSize); });
  threads.RunTo("fault", HookPoint::kFrameToLock);
  {
    MutexLock lock(vm_->state().slots.slots_lock);
    vm_->state().mmus.FastZapAll(LockOp::kZap, nullptr);
  }
  threads.RunToEnd("fault");
  EXPECT_EQ(outcome, AccessOutcome::kDone);
  const VcpuStatsSnapshot since = vm_->VcpuStats()[0].Since(before);
  EXPECT_EQ(since.pf_retried, 1u);
  EXPECT_EQ(since.pf_fixed, 1u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// The page of an obsolete root is freed only when no vCPU uses it any more.
// Covers: SHD-24
TEST_F(EdgeTest, Race36AVcpuThatIsAskedLetsGoOfItsObsoleteRoots) {
  Make({}, kWritable);
  ASSERT_EQ(ReadAt(0), AccessOutcome::kDone);
  {
    MutexLock lock(vm_->state().slots.slots_lock);
    vm_->state().mmus.FastZapAll(LockOp::kZap, nullptr);
  }
  EXPECT_TRUE(shadow().roots().IsObsolete());
  vm_->state().vcpus[0]->HandleRequests();
  EXPECT_EQ(shadow().roots().table(), nullptr);
  EXPECT_EQ(ReadAt(0), AccessOutcome::kDone);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// A guest's flushes of its own vCPU. Loading CR3 without a flush request keeps
// what is cached for its PCID.
// Covers: TLB-04
TEST_F(EdgeTest, AGuestsFlushOfItsVcpuIsCountedAndEmptiesTheTlb) {
  Make({}, kWritable);
  const auto flushes = [&] { return vm_->VcpuStats()[0].tlb_flush; };
  const auto expect_empty = [&](uint64_t expected_flushes, const char* after) {
    EXPECT_EQ(shadow().tlb().Lookup(PageNumber(0)), nullptr) << after;
    EXPECT_EQ(flushes(), expected_flushes) << after;
    ASSERT_EQ(ReadAt(0), AccessOutcome::kDone);
    ASSERT_NE(shadow().tlb().Lookup(PageNumber(0)), nullptr);
  };
  ASSERT_EQ(ReadAt(0), AccessOutcome::kDone);
  const uint64_t before = flushes();
  const GuestRoot root = {.table = Gfn(1)};
  shadow().SetRoot(root, ShadowVcpu::Flush::kYes);
  expect_empty(before + 1, "a load of CR3");
  shadow().InvalidateAll();
  expect_empty(before + 2, "INVPCID of everything");
  shadow().SetRoot({.table = Gfn(9)}, ShadowVcpu::Flush::kNo);
  shadow().SetRoot(root, ShadowVcpu::Flush::kNo);
  EXPECT_NE(shadow().tlb().Lookup(PageNumber(0)), nullptr)
      << "two loads of CR3 that ask for no flush";
  shadow().InvalidatePage(0);
  expect_empty(before + 2, "INVLPG");
  EXPECT_EQ(vm_->VcpuStats()[0].invlpg, 1u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// The auditor compares what the guest keeps for another CR3 of the same PCID
// with the memslot and its log.
TEST_F(EdgeTest, ATranslationThatTheGuestKeepsForAnotherCr3IsAudited) {
  Make({}, kWritable);
  Put(9, 0, Entry(2, kTable));
  // The load of a root that is not cached would flush.
  ASSERT_EQ(ReadAt(0), AccessOutcome::kDone);
  shadow().SetRoot({.table = Gfn(9)}, ShadowVcpu::Flush::kNo);
  ASSERT_EQ(ReadAt(0), AccessOutcome::kDone);
  shadow().SetRoot({.table = Gfn(1)}, ShadowVcpu::Flush::kNo);
  ASSERT_EQ(Access(0, AccessKind::kWrite, 7), AccessOutcome::kDone);
  shadow().SetRoot({.table = Gfn(9)}, ShadowVcpu::Flush::kNo);
  ASSERT_NE(shadow().tlb().Lookup(PageNumber(0)), nullptr);
  EXPECT_EQ(AuditFindings(*vm_), "");
  const uint64_t skipped = SkippedFlushes();
  ArmSkipOneFlush(FlushReason::kWriteProtect, 1);
  ASSERT_TRUE(StartLog(*vm_).ok());
  ASSERT_EQ(SkippedFlushes(), skipped + 1);
  EXPECT_THAT(AuditFindings(*vm_), HasSubstr("INV-6: vCPU 0 may write page"));
  vm_->state().tlb.Flush(FlushScope::kVm, FlushReason::kWriteProtect, nullptr);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// The vCPU's roots are gone, and no request is pending, so only the load of the
// next root can empty the TLB.
// Covers: TLB-04
TEST_F(EdgeTest, TheLoadOfARootEmptiesTheTlbWithoutARequest) {
  Make({}, kWritable);
  ASSERT_EQ(ReadAt(0), AccessOutcome::kDone);
  ASSERT_EQ(ReadAt(kPageSize), AccessOutcome::kDone);
  const auto loads = [&] {
    return vm_->Stats().flush.Flushes(FlushScope::kVcpu, FlushReason::kRoot);
  };
  const uint64_t before = loads();
  shadow().roots().FreeAll(nullptr);
  ASSERT_EQ(vm_->state().vcpus[0]->gate().pending_requests() & kTlbFlush, 0u);
  ASSERT_NE(shadow().tlb().Lookup(PageNumber(0)), nullptr);
  // An address that the TLB does not translate.
  ASSERT_EQ(ReadAt(2 * kPageSize), AccessOutcome::kDone);
  EXPECT_EQ(shadow().tlb().Lookup(PageNumber(0)), nullptr);
  EXPECT_EQ(shadow().tlb().Lookup(PageNumber(1)), nullptr);
  EXPECT_EQ(loads(), before + 1);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// One request flushes both TLBs of a vCPU that runs L1 and L2, counts once, and
// is carried out before the vCPU frees obsolete roots, for which it takes
// mmu_lock.
// Covers: TLB-04
TEST_F(EdgeTest, OfSeveralRequestsTheFlushOfBothTlbsComesFirst) {
  VmConfig config;
  config.mmu = MmuMode::kNested;
  config.memslots = {Slot(0, 0, 16 * kMiB)};
  vm_ = MakeVmFrom(config);
  // L1's tables are at gfns 1 to 4, and grant everything.
  constexpr uint64_t kEptTable = 7;
  constexpr uint64_t kEptPage = 7 | 6 << 3;  // write-back
  for (uint64_t table = 1; table < 4; ++table) {
    Put(table, 0, Entry(table + 1, kEptTable));
  }
  Put(4, 0, Entry(0x100, kEptPage));
  Vcpu& vcpu = *vm_->state().vcpus[0];
  L1Processor cpu(vcpu, Level::k512G);
  NestedPaging paging;
  paging.root = Gpa(kPageSize);
  uint64_t word = 0;
  NestedExit exit;
  cpu.EnterL2(paging);
  ASSERT_EQ(cpu.L2Access({.nested_gpa = Gpa(0)}, &word, &exit),
            L1Cpu::Outcome::kDone);
  cpu.LeaveL2();
  ASSERT_TRUE(cpu.Access(Gpa(0x5000), 8, AccessKind::kRead, &word));
  {
    MutexLock lock(vm_->state().slots.slots_lock);
    vm_->state().mmus.FastZapAll(LockOp::kZap, nullptr);
  }
  vm_->state().tlb.Flush(FlushScope::kVm, FlushReason::kZap, nullptr);
  ASSERT_NE(vcpu.tlb().Lookup(PageNumber(5)), nullptr);
  ASSERT_NE(shadow().tlb().Lookup(PageNumber(0)), nullptr);
  const int64_t before = vcpu.stats().tlb_flush.Get();
  int locked = 0;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kWriteLocked) return;
      ++locked;
      EXPECT_EQ(vcpu.stats().tlb_flush.Get(), before + 1);
      EXPECT_EQ(vcpu.tlb().Lookup(PageNumber(5)), nullptr);
      EXPECT_EQ(shadow().tlb().Lookup(PageNumber(0)), nullptr);
    });
    EXPECT_TRUE(vcpu.HandleRequests());
  }
  EXPECT_GE(locked, 1) << "it has freed its obsolete root";
  EXPECT_EQ(vcpu.stats().tlb_flush.Get(), before + 1);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Another vCPU of the guest clears every bit that the walk sets, and changes
// the leaf. So the walk starts again, and has written to three more tables each
// time.
//
// Covers: DL-42, SHD-47
TEST_F(EdgeTest, AWalkThatStartsOverAgainAndAgainEndsWhereTheDirtyRingIsFull) {
  constexpr uint64_t kFresh = 7;  // present, writable, user; not accessed
  constexpr uint64_t kIgnored = 1 << 9;
  VmConfig config;
  config.dirty_ring_entries = 256;  // the minimum
  Make(config, kReadOnly);
  ASSERT_TRUE(StartLog(*vm_, {}, nullptr).ok());
  const DirtyRing& ring = *vm_->state().vcpus[0]->dirty_ring();
  bool flips = true;
  const auto make_fresh = [&](uint64_t software_bit) {
    Put(1, 0, Entry(2, kFresh));
    Put(2, 0, Entry(3, kFresh));
    Put(3, 0, Entry(4, kFresh));
    Put(4, 0, Entry(0x1000, kFresh | software_bit));
  };
  make_fresh(0);
  const auto at_hook = [&](const LockTrace::Event& event) {
    if (!flips || event.point != HookPoint::kGuestWordToMark) return;
    make_fresh((Word(4, 0) & kIgnored) ^ kIgnored);
  };
  {
    LockTrace trace(at_hook);
    EXPECT_EQ(ReadAt(0), AccessOutcome::kDirtyRingFull);
  }
  EXPECT_EQ(ring.used(), ring.soft_limit());
  EXPECT_EQ(ReadAt(0), AccessOutcome::kDirtyRingFull) << "nobody made room";

  // With room in the ring, and with an unchanged table, the access succeeds.
  flips = false;
  HarvestDirtyRings(vm_->state());
  ASSERT_TRUE(ResetDirtyRings(
                  vm_->state(), [] { return false; }, nullptr)
                  .ok());
  EXPECT_EQ(ring.used(), 0u);
  EXPECT_EQ(ReadAt(0), AccessOutcome::kDone);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// The MMU writes for the guest and marks the page. It must not write while the
// ring has no room for the mark.
// Covers: DL-42, SHD-40
TEST_F(EdgeTest, AWriteToATableIsNotEmulatedWhileTheDirtyRingIsFull) {
  VmConfig config;
  config.dirty_ring_entries = 256;
  Make(config, kReadOnly);
  ASSERT_EQ(ReadAt(0), AccessOutcome::kDone);
  // A directory has a shadow page, so its gfn stays protected.
  ASSERT_EQ(Store(3, 7, 0), AccessOutcome::kDone);
  ASSERT_TRUE(StartLog(*vm_, {}, nullptr).ok());
  DirtyRing& ring = *vm_->state().vcpus[0]->dirty_ring();
  while (!ring.SoftFull()) ring.Push({.slot = 0, .offset = 9});
  EXPECT_EQ(Store(3, 7, 0x5000), AccessOutcome::kDirtyRingFull);
  EXPECT_EQ(Word(3, 7), 0u);
  EXPECT_EQ(ring.used(), ring.soft_limit());
  HarvestDirtyRings(vm_->state());
  ASSERT_TRUE(ResetDirtyRings(
                  vm_->state(), [] { return false; }, nullptr)
                  .ok());
  EXPECT_EQ(Store(3, 7, 0x5000), AccessOutcome::kDone);
  EXPECT_EQ(Word(3, 7), 0x5000u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: SHD-45
TEST_F(EdgeTest, InvlpgOfAnUpperHalfAddressForgetsIt) {
  Make({}, kReadOnly);
  for (const uint64_t base : {uint64_t{0}, 0xffff'8000'0000'0000}) {
    ASSERT_EQ(Store(4, 0, Entry(0x1000, kReadOnly)), AccessOutcome::kDone);
    shadow().InvalidatePage(base);
    EXPECT_EQ(Access(base, AccessKind::kRead, 0, Privilege::kUser),
              AccessOutcome::kDone);
    constexpr uint64_t kUserBit = 4;
    ASSERT_EQ(Store(4, 0, Entry(0x1000, kReadOnly & ~kUserBit)),
              AccessOutcome::kDone);
    shadow().InvalidatePage(base);
    EXPECT_EQ(Access(base, AccessKind::kRead, 0, Privilege::kUser),
              AccessOutcome::kGuestFault);
  }
}

// Covers: PF-23, SHD-47
TEST_F(EdgeTest, TablesThatTheHostLetsBeReadOnlyAreNotWritten) {
  constexpr uint64_t kAccessedAndDirty = 0x60;
  Make({}, kWritable & ~kAccessedAndDirty);
  ASSERT_EQ(ReadAt(2 * kMiB), AccessOutcome::kDone);
  const Memslot& slot = SlotOf(*vm_, Gfn(0));
  const Hva hva = slot.HvaOf(Gfn(3));
  SetHostAccess(vm_->state(), {hva, hva + 2 * kPageSize},
                HostAccess::kReadOnly);
  EXPECT_EQ(ReadAt(0), AccessOutcome::kDone);
  EXPECT_EQ(Word(4, 0) & kAccessedAndDirty, 0u);
  // A write by the guest, however, fails with an error.
  EXPECT_EQ(Access(0, AccessKind::kWrite, 1, Privilege::kSupervisor),
            AccessOutcome::kError);
  EXPECT_EQ(Store(3, 7, Entry(4, kTable)), AccessOutcome::kError);
  EXPECT_EQ(Word(3, 7), 0u);
}

// Covers: ROLE-24
TEST(EdgeOfL1Test, ARootInMemoryWithoutContentsIsNone) {
  VmConfig config;
  config.mmu = MmuMode::kNested;
  config.memslots = {Slot(0, 0, kMiB), Slot(1, kGiB, kMiB, Level::k4K,
                                            BackingKind::kMetadataOnly)};
  auto vm = MakeVmFrom(config);
  L1Processor l1(*vm->state().vcpus[0], Level::k512G);
  NestedPaging paging;
  paging.root = Gpa(kGiB);
  l1.EnterL2(paging);
  uint64_t word = 0;
  NestedExit exit;
  EXPECT_EQ(l1.L2Access({.nested_gpa = Gpa(0)}, &word, &exit),
            L1Cpu::Outcome::kExit);
  EXPECT_EQ(exit.fault.kind, GuestFault::Kind::kEptViolation);
  EXPECT_TRUE(l1.Access(Gpa(kGiB), 8, AccessKind::kWrite, &word));
}

// Lets the vCPU handle a fault while a slot is being deleted.
class FaultMeanwhile : public RegionHooks {
 public:
  FaultMeanwhile(VmState& vm, std::function<void()> fault)
      : RegionHooks(vm, nullptr), fault_(std::move(fault)) {}
  void FlushShadowSlot(const Memslot& slot) override {
    RegionHooks::FlushShadowSlot(slot);
    fault_();
  }

 private:
  const std::function<void()> fault_;
};

// Covers: SLOT-25
TEST_F(EdgeTest, NoPageIsMadeForATableInASlotThatIsBeingDeleted) {
  constexpr uint64_t kGone = kGiB >> 12;
  VmConfig config;
  config.slot_zap = VmConfig::SlotZap::kSlot;
  config.memslots = {Slot(1, kGiB, kMiB)};
  Make(config, kWritable);
  for (uint64_t i = 0; i < 256; ++i) {
    Put(kGone, i, Entry(0x1000 + i, kWritable));
  }
  Put(3, 0, Entry(kGone, kTable));
  ASSERT_EQ(ReadAt(2 * kMiB), AccessOutcome::kDone);
  VmState& state = vm_->state();
  GuestContext& guest = shadow().guest();
  // The fault has walked the guest's tables. The last table is in the deleted
  // slot.
  const GuestWalkResult walk =
      guest.walker.Walk(guest.memory, shadow().where(), 0, {});
  ASSERT_TRUE(walk.translated());
  FaultMeanwhile hooks(state, [&] {
    ASSERT_TRUE(guest.caches.TopUpForFault(IndirectPages::kPossible).ok());
    RcuReadGuard rcu;
    PageFault fault;
    fault.gfn = walk.gfn;
    fault.slot = state.slots.Active(0).FindByGfn(walk.gfn);
    fault.invalidate_sequence = state.invalidations.snapshot();
    fault.pfn = fault.slot->PfnOf(fault.gfn);
    MmuWriteLocked lock(state.mmu_lock, LockOp::kFault);
    ASSERT_FALSE(shadow().roots().IsObsolete());
    EXPECT_EQ(state.shadow->faults().MapGuest(
                  lock, guest, *shadow().roots().TopPage(0), fault, 0, walk,
                  walk.access, nullptr),
              FaultResult::kRetry);
  });
  {
    MutexLock lock(state.slots.slots_lock);
    RegionRequest request;
    request.slot = 1;
    request.gpa = Gpa(kGiB);
    request.userspace_addr = state.slots.Active(0).FindById(1)->hva;
    ASSERT_TRUE(state.slots.SetRegion(request, hooks).ok());
  }
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: SHD-20, TLB-06
TEST_F(EdgeTest, ARootThatIsZappedMayHangBelowAnother) {
  VmConfig config;
  config.vcpu_count = 2;
  Make(config, kWritable);
  // The page directory is a root of vCPU 1, which is in PAE mode.
  GuestPagingState pae = LongMode();
  pae.efer = kEferNx;
  GuestRoot root;
  root.pdptes[0] = Entry(3, 1);
  Run(shadow(1), pae, root);
  uint64_t word = 7;
  GuestFault fault;
  ASSERT_EQ(
      shadow(1).Access(2 * kMiB, 8, {.kind = AccessKind::kRead}, &word, &fault),
      AccessOutcome::kDone);
  ASSERT_EQ(Access(0, AccessKind::kWrite, 7), AccessOutcome::kDone);
  ASSERT_NE(shadow().tlb().Lookup(PageNumber(0)), nullptr);
  // Flooding zaps the whole shadow page.
  GuestMemoryAccess memory(vm_->state().slots, 0, nullptr);
  for (uint64_t i = 0; i < 3; ++i) {
    vm_->state().shadow->pte_writes().Written(
        0, Gpa(3 * kPageSize + 8 * (100 + i)), 8, memory, nullptr);
  }
  ASSERT_EQ(vm_->Stats().mmu_flooded, 1u);
  vm_->state().vcpus[0]->HandleRequests();
  EXPECT_EQ(shadow().tlb().Lookup(PageNumber(0)), nullptr);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: SHD-28
TEST_F(EdgeTest, RootsThatAreOnlyKeptMakeRoomForOneThatIsNeeded) {
  constexpr uint64_t kVcpus = 20;
  VmConfig config;
  config.shadow_page_limit = 64;
  config.vcpu_count = kVcpus;
  Make(config, kWritable);
  for (uint64_t i = 0; i < 4 * kVcpus; ++i) Put(100 + i, 0, Entry(2, kTable));
  for (uint64_t round = 0; round < 4; ++round) {
    for (uint64_t vcpu = 0; vcpu < kVcpus; ++vcpu) {
      Run(shadow(vcpu), LongMode(),
          {.table = Gfn(100 + round * kVcpus + vcpu)});
      uint64_t word;
      GuestFault fault;
      ASSERT_EQ(
          shadow(vcpu).Access(0, 8, {.kind = AccessKind::kRead}, &word, &fault),
          AccessOutcome::kDone)
          << shadow(vcpu).status();
    }
  }
  EXPECT_EQ(AuditFindings(*vm_), "");
}

TEST(EdgeOfWorkloadsTest, AWorkloadEndsInTimeThoughItsRingIsFull) {
  VmConfig config;
  config.mmu = MmuMode::kShadow;
  config.format = EntryFormat::kNpt;
  config.dirty_ring_entries = 256;
  config.memslots = {Slot(0, 0, 64 * kMiB)};
  auto vm = MakeVmFrom(config);
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  PatternSpec writes;
  writes.write_fraction = 1;
  WorkloadOptions options;
  options.sources.push_back(MakePattern(writes, vm->GuestSpace(), 0, 1));
  options.max_duration = absl::Milliseconds(200);
  ASSERT_TRUE(vm->StartWorkload(std::move(options)).ok());
  EXPECT_TRUE(vm->WaitWorkload(absl::Seconds(30)));
}

}  // namespace
}  // namespace mmu::testing
