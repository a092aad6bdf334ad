// Faults of vCPUs without guest tables: second-stage tables without the TDP
// MMU, and guests with paging off.

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/page_fault.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/shadow/shadow_faults.h"
#include "mmu_core/shadow/shadow_zap.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/shadow_vcpu_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kSlotPages = 8192;
constexpr uint64_t kHole = 0x100000;  // a gfn without a slot

constexpr GuestPageAccess kRead = {.kind = AccessKind::kRead};
constexpr GuestPageAccess kWrite = {.kind = AccessKind::kWrite};

uint64_t At(uint64_t gfn) { return gfn << kPageShift; }

class DirectFaultsTest : public ::testing::Test {
 protected:
  explicit DirectFaultsTest(const SpteFormat& format = SpteFormat::Ept())
      : vm_({.format = &format}),
        slot_(vm_.memory.AddSlot(GfnRange::Of(Gfn(0), kSlotPages), Level::k2M)),
        vcpu_(vm_, GuestWalker(),
              TdpRootRole(Level::k512G, AdBits::kEnabled, {})) {
    EXPECT_TRUE(vcpu_.Load().ok());
  }
  ~DirectFaultsTest() override {
    for (const uint64_t gfn : disallowed_) slot_.lpage_info->Allow(Gfn(gfn));
    EXPECT_EQ(vm_.AuditFindings(), "");
  }

  // Makes the host map the block of `gfn` by small pages, until the end of the
  // test: the auditor takes it for a guest's table.
  void MapSmall(uint64_t gfn) {
    slot_.lpage_info->Disallow(Gfn(gfn));
    disallowed_.push_back(gfn);
  }
  SpteSlot& EntryOf(uint64_t gfn) {
    return const_cast<SpteSlot&>(*vcpu_.Translate(At(gfn)).slot);
  }
  void LogDirtyPages() { LogDirtyPagesOf(slot_); }
  PageFault FaultOn(uint64_t gfn, AccessKind kind = AccessKind::kWrite) {
    PageFault fault;
    fault.gfn = Gfn(gfn);
    fault.kind = kind;
    fault.present = true;
    fault.slot = &slot_;
    return fault;
  }
  FaultResult FastFault(uint64_t gfn, AccessKind kind = AccessKind::kWrite) {
    PageFault fault = FaultOn(gfn, kind);
    return vm_.faults.FastFault(*vcpu_.roots().TopPage(At(gfn)), fault);
  }
  // Clears W as dirty logging does.
  void WriteProtect(uint64_t gfn) {
    SpteSlot& sptep = EntryOf(gfn);
    sptep.Store(sptep.Load().Without(spte_bits::kWrite));
  }

  ShadowTestVm vm_;
  Memslot& slot_;
  ShadowTestVcpu vcpu_;
  std::vector<uint64_t> disallowed_;
};

// Covers: PF-43
TEST_F(DirectFaultsTest, ItTranslatesAsTheTdpMmuDoes) {
  auto tdp = MakeVm({Slot(0, 0, kSlotPages * kPageSize, Level::k2M)});
  // No slot changes in this test, so the slot stays after the RCU section. The
  // faults of the test must not run within one.
  const Memslot* const tdp_slot = [&] {
    RcuReadGuard rcu;
    return tdp->state().slots.Active(0).FindByGfn(Gfn(0));
  }();
  std::mt19937_64 random{20261121};
  int huge = 0;
  for (uint64_t gfn = 0; gfn < kSlotPages; gfn += 1024) {
    MapSmall(gfn);
    tdp_slot->lpage_info->Disallow(Gfn(gfn));
  }
  for (int i = 0; i < 2000; ++i) {
    const uint64_t gfn = random() % kSlotPages;
    if (i % 100 == 0) {
      // Now and then a block may no longer have a huge page, or may again.
      MapSmall(gfn);
      tdp_slot->lpage_info->Disallow(Gfn(gfn));
      if (random() % 2 == 0) {
        slot_.lpage_info->Allow(Gfn(gfn));
        disallowed_.pop_back();
        tdp_slot->lpage_info->Allow(Gfn(gfn));
      }
    }
    const auto kind = static_cast<AccessKind>(random() % kAccessKinds);
    Touch(*tdp, GfnRange::Of(Gfn(gfn), 1), kind);
    if (!vm_.format.Allows(vcpu_.Translate(At(gfn)).spte, kind)) {
      ASSERT_EQ(vcpu_.Fault(At(gfn), {.kind = kind}), FaultResult::kFixed);
    }
    const HardwareTranslation found = vcpu_.Translate(At(gfn));
    const Spte spte = SpteOf(tdp->state(), Gfn(gfn));
    ASSERT_TRUE(found.present);
    // The levels may differ: prefetched leafs stay as they are.
    ASSERT_EQ(found.pfn - slot_.PfnOf(Gfn(0)), gfn);
    ASSERT_EQ(spte.pfn() - tdp_slot->PfnOf(Gfn(0)),
              RoundDown(Gfn(gfn), LevelOf(tdp->state(), Gfn(gfn))).value());
    huge += found.level > Level::k4K;
    ASSERT_EQ(found.rights, vm_.format.RightsOf(spte));
  }
  EXPECT_GT(huge, 0);
  EXPECT_LT(huge, 2000);
}

// Covers: PF-43
TEST_F(DirectFaultsTest, PagesAreDirectAndFoundByTheFirstGfn) {
  MapSmall(1024);
  ASSERT_EQ(vcpu_.Fault(At(1024 + 5), kWrite), FaultResult::kFixed);
  const ShadowPageState& page =
      PageHolding(*vcpu_.Translate(At(1024 + 5)).slot);
  EXPECT_EQ(page.gfn(), Gfn(1024));
  EXPECT_TRUE(page.page->role.IsDirect());
  EXPECT_EQ(page.page->role.access(), kAllRights);
  EXPECT_EQ(vm_.pages.in_use(), 4u);
  EXPECT_EQ(vcpu_.Fault(At(1024 + 5), kWrite), FaultResult::kSpurious);
}

// Covers: SHD-53, PF-43
TEST_F(DirectFaultsTest, TheAlignedBlockOfEightGfnsIsPrefetched) {
  MapSmall(1024);
  ASSERT_EQ(vcpu_.Fault(At(1024 + 10), kRead), FaultResult::kFixed);
  for (uint64_t i = 0; i < 24; ++i) {
    const HardwareTranslation found = vcpu_.Translate(At(1024 + i));
    EXPECT_EQ(found.present, i >= 8 && i < 16) << i;
    if (!found.present) continue;
    EXPECT_EQ(found.pfn, slot_.PfnOf(Gfn(1024 + i)));
    EXPECT_EQ(vm_.format.IsAccessed(found.spte), i == 10) << i;
  }
  EXPECT_EQ(vm_.counters.Leafs(Level::k4K), 8u);
  // A spurious fault prefetches nothing.
  {
    MmuWriteLocked lock(vm_.mmu_lock, LockOp::kFault);
    vm_.pages.links().DropLeaf(lock, EntryOf(1024 + 12));
  }
  EXPECT_EQ(vcpu_.Fault(At(1024 + 10), kRead), FaultResult::kSpurious);
  EXPECT_EQ(vm_.counters.Leafs(Level::k4K), 7u);
}

TEST_F(DirectFaultsTest, ALoggedSlotIsNotPrefetched) {
  LogDirtyPages();
  ASSERT_EQ(vcpu_.Fault(At(10), kRead), FaultResult::kFixed);
  EXPECT_EQ(vm_.counters.Leafs(Level::k4K), 1u);
  EXPECT_TRUE(slot_.dirty_bitmap->Test(10)) << "writable at once";
}

TEST_F(DirectFaultsTest, AGfnThatTheRootDoesNotCoverIsNotMapped) {
  vm_.memory.AddSlot(GfnRange::Of(Gfn(uint64_t{1} << 36), 512));
  EXPECT_EQ(vcpu_.Fault(At(uint64_t{1} << 36), kRead), FaultResult::kRetry);
  EXPECT_EQ(vm_.counters.Leafs(Level::k4K), 0u);
}

TEST_F(DirectFaultsTest, MmioSptesGiveWayToMemoryAndNotTheOtherWayRound) {
  vcpu_.mmio = Spte(0x6 | uint64_t{kHole} << kPageShift);
  EXPECT_EQ(vcpu_.Fault(At(kHole), kRead), FaultResult::kEmulate);
  EXPECT_TRUE(vcpu_.fault.mmio_spte_created);
  EXPECT_EQ(vcpu_.Translate(At(kHole)).spte, vcpu_.mmio);
  EXPECT_EQ(vcpu_.Fault(At(kHole), kRead), FaultResult::kEmulate);
  EXPECT_FALSE(vcpu_.fault.mmio_spte_created);
  vm_.memory.AddSlot(GfnRange::Of(Gfn(kHole), 512));
  EXPECT_EQ(vcpu_.Fault(At(kHole), kRead), FaultResult::kFixed);
  // This fault looked for the slot before it was added.
  PageFault late;
  late.gfn = Gfn(kHole);
  late.mmio = vcpu_.mmio;
  MmuWriteLocked lock(vm_.mmu_lock, LockOp::kFault);
  EXPECT_EQ(
      vm_.faults.MapDirect(lock, vcpu_.guest(),
                           *vcpu_.roots().TopPage(At(kHole)), late, nullptr),
      FaultResult::kRetry);
}

TEST_F(DirectFaultsTest, AMappedPageIsNotMappedAheadAgain) {
  MapSmall(0);
  ASSERT_EQ(vcpu_.Fault(At(5), kWrite), FaultResult::kFixed);
  WriteProtect(5);
  PageFault ahead = FaultOn(5, AccessKind::kRead);
  ahead.prefetched = Prefetched::kYes;
  ahead.pfn = slot_.PfnOf(Gfn(5));
  MmuWriteLocked lock(vm_.mmu_lock, LockOp::kFault);
  EXPECT_EQ(vm_.faults.MapDirect(lock, vcpu_.guest(), *vcpu_.roots().TopPage(0),
                                 ahead, nullptr),
            FaultResult::kSpurious);
  EXPECT_FALSE(EntryOf(5).Load().IsWritable());
}

TEST(UnpagedFaultsTest, WithoutPagingTheLargestPageHasTwoMegabytes) {
  ShadowTestVm vm({});
  vm.memory.AddSlot(GfnRange::Of(Gfn(0), uint64_t{1} << 18), Level::k1G);
  ShadowTestVcpu vcpu(vm, GuestPagingState{});
  ASSERT_TRUE(vcpu.Load().ok());
  ASSERT_EQ(vcpu.Fault(At(0x12345), kWrite), FaultResult::kFixed);
  EXPECT_EQ(vcpu.Translate(At(0x12345)).level, Level::k2M);
  EXPECT_EQ(vm.AuditFindings(), "");
}

// --- The fast page fault ---

// Covers: PF-11
TEST_F(DirectFaultsTest, TheFastFaultGivesWriteBackAndMarks) {
  MapSmall(0);
  ASSERT_EQ(vcpu_.Fault(At(5), kWrite), FaultResult::kFixed);
  LogDirtyPages();
  WriteProtect(5);
  EXPECT_EQ(FastFault(5, AccessKind::kRead), FaultResult::kInvalid);
  EXPECT_EQ(FastFault(600), FaultResult::kInvalid) << "no leaf";
  EXPECT_EQ(FastFault(kHole), FaultResult::kInvalid);
  EXPECT_EQ(FastFault(uint64_t{1} << 36), FaultResult::kInvalid);
  const uint64_t flushes = vm_.Flushes();
  EXPECT_EQ(FastFault(5), FaultResult::kFixed);
  EXPECT_TRUE(EntryOf(5).Load().IsWritable());
  EXPECT_TRUE(slot_.dirty_bitmap->Test(5));
  EXPECT_EQ(FastFault(5), FaultResult::kSpurious);
  EXPECT_EQ(vm_.Flushes(), flushes);
}

TEST_F(DirectFaultsTest, TheFastFaultLeavesWhatIsProtectedForGood) {
  MapSmall(0);
  ASSERT_EQ(vcpu_.Fault(At(5), kWrite), FaultResult::kFixed);
  SpteSlot& sptep = EntryOf(5);
  sptep.Store(vm_.format.WithoutMmuWrite(sptep.Load()));
  EXPECT_EQ(FastFault(5), FaultResult::kInvalid);
  // A huge page of a logged slot must not become writable.
  ASSERT_EQ(vcpu_.Fault(At(1024), kWrite), FaultResult::kFixed);
  LogDirtyPages();
  WriteProtect(1024);
  EXPECT_EQ(FastFault(1024), FaultResult::kInvalid);
}

// Covers: PF-12
TEST_F(DirectFaultsTest, TheFastFaultNeedsNoLock) {
  MapSmall(0);
  ASSERT_EQ(vcpu_.Fault(At(5), kWrite), FaultResult::kFixed);
  WriteProtect(5);
  MmuWriteLocked lock(vm_.mmu_lock, LockOp::kZap);
  std::thread fault([&] { EXPECT_EQ(FastFault(5), FaultResult::kFixed); });
  fault.join();
}

// Covers: PF-12
TEST_F(DirectFaultsTest, PagesAreNotFreedUnderTheFastFault) {
  MapSmall(0);
  std::atomic<bool> stop{false};
  ASSERT_EQ(vcpu_.Fault(At(5), kWrite), FaultResult::kFixed);
  std::thread faults([&] {
    while (!stop.load()) FastFault(5);
  });
  for (int i = 0; i < 300; ++i) {
    ASSERT_NE(vcpu_.Fault(At(5), kWrite), FaultResult::kRetry);
    MmuWriteLocked lock(vm_.mmu_lock, LockOp::kZap);
    ZappedPages zapped;
    vm_.pages.zap().Prepare(lock, PageHolding(EntryOf(5)), zapped);
    vm_.pages.zap().Commit(lock, zapped, nullptr);
  }
  stop.store(true);
  faults.join();
}

}  // namespace
}  // namespace mmu::testing
