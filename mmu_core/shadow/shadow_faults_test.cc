// Faults of guests whose own tables are shadowed. shadow_tree_model_test.cc
// tests the translations in each paging mode.

#include "mmu_core/shadow/shadow_faults.h"

#include <cstdint>
#include <memory>
#include <optional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/shadow/shadow_zap.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/flush_trace.h"
#include "mmu_core/testing/shadow_vcpu_test_util.h"
#include "mmu_core/tlb/tlb_flush.h"

namespace mmu::testing {
namespace {

using ::testing::ElementsAre;

constexpr uint64_t kW = guest_entry::kWritable;
constexpr uint64_t kU = guest_entry::kUser;
constexpr uint64_t kA = guest_entry::kAccessed;
constexpr uint64_t kD = guest_entry::kDirty;
constexpr uint64_t kHole = 0x100000;  // a gfn without a slot

constexpr GuestPageAccess kRead = {.kind = AccessKind::kRead};
constexpr GuestPageAccess kWrite = {.kind = AccessKind::kWrite};
constexpr GuestPageAccess kExec = {.kind = AccessKind::kExec};
constexpr GuestPageAccess kUserRead = {.kind = AccessKind::kRead,
                                       .privilege = Privilege::kUser};

// On the way to kVa the index is 0x145 at level 1, 0x91 at level 2 and 0 above.
constexpr uint64_t kVa = 0x12345000;
constexpr uint64_t kHugeVa = 0x12200000;  // the 2 MiB around kVa begin here
// The guest's tables of levels 4 to 1 are at kTop and the following gfns.
constexpr uint64_t kTop = 10;
constexpr uint64_t kPageDirectory = kTop + 2;
constexpr uint64_t kPageTable = kTop + 3;

class ShadowFaultsTest : public ::testing::Test {
 protected:
  explicit ShadowFaultsTest(const ShadowTestVm::Options& options = {},
                            Level host_page_level = Level::k2M)
      : vm_(options) {
    slot_ = &vm_.memory.AddSlot(GfnRange::Of(Gfn(0), 8192), host_page_level);
  }
  ~ShadowFaultsTest() override { EXPECT_EQ(vm_.AuditFindings(), ""); }

  // Maps kVa, or with a larger page the range around it, and loads the root.
  void MapVa(ShadowTestVcpu& vcpu, uint64_t leaf, int level = 1,
             uint64_t flags = kGuestTable) {
    PutPath(vm_.memory, vcpu.guest().walker, kTop, kVa, leaf, level, flags);
    vcpu.LoadCr3(Gfn(kTop));
  }
  Pfn PfnOf(uint64_t gfn) const { return slot_->PfnOf(Gfn(gfn)); }
  void LogDirtyPages() { LogDirtyPagesOf(*slot_); }
  uint64_t Leafs(Level level = Level::k4K) const {
    return vm_.counters.Leafs(level);
  }
  void Zap(ShadowPageState& page) {
    MmuWriteLocked lock(vm_.mmu_lock, LockOp::kZap);
    ZappedPages zapped;
    vm_.pages.zap().Prepare(lock, page, zapped);
    vm_.pages.zap().Commit(lock, zapped, nullptr);
  }
  // The shadow page whose entry translates `address`.
  static ShadowPageState& LastPage(const ShadowTestVcpu& vcpu,
                                   uint64_t address = kVa) {
    return PageHolding(*vcpu.Translate(address).slot);
  }

  ShadowTestVm vm_;
  Memslot* slot_;
};

class SmallHostPagesTest : public ShadowFaultsTest {
 protected:
  SmallHostPagesTest() : ShadowFaultsTest({}, Level::k4K) {}
};

class NestedFaultsTest : public ShadowFaultsTest {
 protected:
  NestedFaultsTest()
      : ShadowFaultsTest(
            {.format = &SpteFormat::Ept(), .tdp = TdpEnabled::kYes}) {}

  std::unique_ptr<ShadowTestVcpu> EptVcpu(const EptOptions& options) {
    const CpuRole role = EptCpuRole(options, 0);
    return std::make_unique<ShadowTestVcpu>(
        vm_, GuestWalker(GuestTables::kEpt, role, {}), ShadowEptRootRole(role));
  }
};

// --- The guest edits its tables while a fault is handled ---

// Covers: SHD-50
TEST_F(ShadowFaultsTest, AnEditOfAnyEntryAfterTheWalkMeansAnotherTry) {
  for (uint64_t table = kTop; table <= kPageTable; ++table) {
    ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
    MapVa(vcpu, EntryTo(600));
    const int index = table == kPageTable       ? 0x145
                      : table == kPageDirectory ? 0x91
                                                : 0;
    vcpu.before_lock = [&] {
      vm_.memory.PutEntry(Gfn(table), index,
                          vm_.memory.GetEntry(Gfn(table), index) & ~kW);
    };
    EXPECT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kRetry) << table;
    EXPECT_FALSE(vcpu.Translate(kVa).present);
    EXPECT_EQ(Leafs(), 0u);
    vcpu.before_lock = nullptr;
    EXPECT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
    EXPECT_FALSE(vcpu.Translate(kVa).rights.Has(kMayWrite));
    EXPECT_EQ(vm_.AuditFindings(), "");
    vcpu.roots().FreeAll(nullptr);
    vm_.FastZap();
  }
}

// RACE-32 requires this order.
//
// Covers: SHD-50
TEST_F(ShadowFaultsTest, AnEntryIsReadAgainOnceItsTableIsGuarded) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(600));
  int looked_at = 0;
  vcpu.before_lock = [&] {
    vm_.memory.on_read = [&](Gpa gpa) {
      const Gfn table = ToGfn(gpa);
      if (table == Gfn(kTop)) return;  // the root was loaded before
      // This thread holds mmu_lock, so it may read the set.
      bool found = false;
      for (const ShadowPageState* page = vm_.pages.set().FirstInChain(table);
           page != nullptr; page = page->hash_next) {
        found |= page->gfn() == table;
      }
      EXPECT_TRUE(found) << table;
      ++looked_at;
    };
  };
  EXPECT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  vm_.memory.on_read = nullptr;
  EXPECT_GE(looked_at, 3);
}

// Covers: SHD-50, SHD-32
TEST_F(ShadowFaultsTest, WhatIsUnsyncBelowATableIsSyncedBeforeItIsLinked) {
  ShadowTestVcpu first(vm_, kFourLevelPaging);
  MapVa(first, EntryTo(600));
  ASSERT_EQ(first.Fault(kVa, kRead), FaultResult::kFixed);
  ASSERT_TRUE(vm_.GuestWrites(kPageTable, 0x145, EntryTo(601)));
  EXPECT_EQ(first.Translate(kVa).pfn, PfnOf(600)) << "stale until it flushes";
  // Another process maps the same page directory at another address.
  constexpr uint64_t kAlias = (uint64_t{1} << 39) + kVa;
  ShadowTestVcpu second(vm_, kFourLevelPaging);
  vm_.memory.PutEntry(Gfn(50), 1, EntryTo(51, kGuestTable));
  vm_.memory.PutEntry(Gfn(51), 0, EntryTo(kPageDirectory, kGuestTable));
  second.LoadCr3(Gfn(50));
  // The fault is on another page of the same page table. kVa's leaf comes with
  // the link to the page table.
  vm_.memory.PutEntry(Gfn(kPageTable), 0x155, EntryTo(700));
  ASSERT_EQ(second.Fault(kAlias + 0x10000, kRead), FaultResult::kFixed);
  ASSERT_EQ(&LastPage(second, kAlias + 0x10000), vm_.PagesOf(kPageTable)[0]);
  EXPECT_FALSE(second.Translate(kAlias).present);
}

// Covers: SHD-03
TEST_F(ShadowFaultsTest, AnUnsyncPageIsSyncedBeforeItIsFoundAgain) {
  ShadowTestVcpu first(vm_, kFourLevelPaging);
  MapVa(first, EntryTo(600));
  ASSERT_EQ(first.Fault(kVa, kRead), FaultResult::kFixed);
  ASSERT_TRUE(vm_.GuestWrites(kPageTable, 0x145, 0));
  // Another entry of the page directory leads to the same page table.
  vm_.memory.PutEntry(Gfn(kPageDirectory), 5, EntryTo(kPageTable, kGuestTable));
  vm_.memory.PutEntry(Gfn(kPageTable), 3, EntryTo(700));
  const uint64_t address = (uint64_t{5} << 21) + 0x3000;
  ASSERT_EQ(first.Fault(address, kRead), FaultResult::kFixed);
  EXPECT_FALSE(first.Translate(kVa).present);
}

// --- Sizes ---

// Covers: ROLE-09, SHD-63
TEST_F(SmallHostPagesTest, AGuestsHugePageOnSmallHostPagesHasADirectPage) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(1024, kGuestHugePage & ~kU), 2);
  ASSERT_EQ(vcpu.Fault(kVa, kWrite), FaultResult::kFixed);
  const HardwareTranslation found = vcpu.Translate(kVa);
  EXPECT_EQ(found.level, Level::k4K);
  EXPECT_EQ(found.pfn, PfnOf(1024 + 0x145));
  EXPECT_EQ(found.rights, kAllRights.Without(kMayUser));
  const ShadowPageState& page = LastPage(vcpu);
  EXPECT_TRUE(page.page->role.IsDirect());
  EXPECT_EQ(page.gfn(), Gfn(1024));
  EXPECT_EQ(page.page->role.access(), kAllRights.Without(kMayUser));
}

// Covers: PF-31, SHD-63
TEST_F(ShadowFaultsTest, ThePageIsAsLargeAsGuestAndHostBothAllow) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(1024, kGuestHugePage), 2);
  ASSERT_EQ(vcpu.Fault(kVa, kWrite), FaultResult::kFixed);
  EXPECT_EQ(vcpu.Translate(kVa).level, Level::k2M);
  EXPECT_EQ(vcpu.Translate(kVa).pfn, PfnOf(1024 + 0x145));
  EXPECT_EQ(Leafs(Level::k2M), 1u);

  constexpr uint64_t kSmall = kVa + (1 << 21);
  PutPath(vm_.memory, vcpu.guest().walker, kTop, kSmall, EntryTo(1024 + 0x145));
  ASSERT_TRUE(vcpu.Load().ok());
  ASSERT_EQ(vcpu.Fault(kSmall, kRead), FaultResult::kFixed);
  EXPECT_EQ(vcpu.Translate(kSmall).level, Level::k4K);

  // The guest maps 1 GiB, the host backs it with pages of 2 MiB.
  constexpr uint64_t kGigantic = (uint64_t{1} << 30) + kVa % (8192 * kPageSize);
  vm_.memory.PutEntry(Gfn(kTop + 1), 1, EntryTo(0, kGuestHugePage));
  ASSERT_TRUE(vcpu.Load().ok());
  ASSERT_EQ(vcpu.Fault(kGigantic, kRead), FaultResult::kFixed);
  EXPECT_EQ(vcpu.Translate(kGigantic).level, Level::k2M);
  EXPECT_TRUE(LastPage(vcpu, kGigantic).page->role.IsDirect());
}

// Covers: PF-33
TEST_F(ShadowFaultsTest, AHugePageThatHoldsAPageTableIsMappedSmall) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  // The first 2 MiB hold the guest's tables, which have no shadow pages yet.
  // This fault makes them.
  MapVa(vcpu, EntryTo(0, kGuestHugePage), 2);
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  EXPECT_EQ(vcpu.Translate(kVa).level, Level::k4K);

  // The tables of the upper levels are in other regions; the last table is in
  // the 2 MiB that it maps.
  ShadowTestVcpu other(vm_, kFourLevelPaging);
  vm_.memory.PutEntry(Gfn(1024), 0, EntryTo(1025, kGuestTable));
  vm_.memory.PutEntry(Gfn(1025), 0, EntryTo(2048 + 1, kGuestTable));
  vm_.memory.PutEntry(Gfn(2048 + 1), 0x91, EntryTo(2048, kGuestHugePage));
  other.LoadCr3(Gfn(1024));
  EXPECT_FALSE(slot_->lpage_info->Disallowed(Gfn(2048), Level::k2M));
  ASSERT_EQ(other.Fault(kVa, kRead), FaultResult::kFixed);
  EXPECT_TRUE(slot_->lpage_info->Disallowed(Gfn(2048), Level::k2M));
  EXPECT_EQ(other.Translate(kVa).level, Level::k4K);
}

// Covers: PF-30
TEST_F(ShadowFaultsTest, ALoggedSlotIsMappedSmallAndMarkedPageByPage) {
  LogDirtyPages();
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(1024, kGuestHugePage), 2);
  ASSERT_EQ(vcpu.Fault(kVa, kWrite), FaultResult::kFixed);
  EXPECT_EQ(vcpu.Translate(kVa).level, Level::k4K);
  EXPECT_EQ(vcpu.fault.dirtied_pages, 1);
  EXPECT_TRUE(slot_->dirty_bitmap->Test(1024 + 0x145));
  EXPECT_FALSE(slot_->dirty_bitmap->Test(1024 + 0x144));
  EXPECT_EQ(Leafs(), 1u) << "writable pages of a logged slot do not come ahead";
}

// Covers: SPTE-51, SPTE-52
TEST_F(ShadowFaultsTest, ExecutedHugePagesStaySmallWhileMitigated) {
  vm_.nx_huge_pages.SetMitigated(true);
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(1024, kGuestHugePage), 2);
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  EXPECT_EQ(vcpu.Translate(kVa).level, Level::k2M);
  EXPECT_FALSE(vcpu.Translate(kVa).rights.Has(kMayExec));
  ASSERT_EQ(vcpu.Fault(kVa, kExec), FaultResult::kFixed);
  EXPECT_EQ(vcpu.Translate(kVa).level, Level::k4K);
  EXPECT_TRUE(vcpu.Translate(kVa).rights.Has(kMayExec));
  EXPECT_EQ(vm_.nx_huge_pages.count(), 1u);
  // A read of a nearby page does not make the huge page come back.
  constexpr uint64_t kNear = kHugeVa + 0x1ff000;
  ASSERT_EQ(vcpu.Fault(kNear, kRead), FaultResult::kFixed);
  EXPECT_EQ(vcpu.Translate(kNear).level, Level::k4K);
  EXPECT_TRUE(vcpu.Translate(kVa).present);
  EXPECT_EQ(vm_.nx_huge_pages.count(), 1u);
}

// If the host has only small pages, the mitigation takes no huge page away.
// Covers: SPTE-51
TEST_F(SmallHostPagesTest, ExecutedPagesThatCouldNotBeHugeAreNotListed) {
  vm_.nx_huge_pages.SetMitigated(true);
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(1024, kGuestHugePage), 2);
  ASSERT_EQ(vcpu.Fault(kVa, kExec), FaultResult::kFixed);
  EXPECT_EQ(vcpu.Translate(kVa).level, Level::k4K);
  EXPECT_EQ(vm_.nx_huge_pages.count(), 0u);
}

// --- The entry holds an SPTE already ---

// Covers: SHD-51, SHD-48
TEST_F(SmallHostPagesTest, ADirectPageIsReplacedOnceTheGuestsPageIsDirty) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(1024, kGuestHugePage & ~kD), 2);
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  ShadowPageState& clean = LastPage(vcpu);
  EXPECT_EQ(clean.page->role.access(), kAllRights.Without(kMayWrite));
  EXPECT_FALSE(vcpu.Translate(kVa).rights.Has(kMayWrite));
  const FlushTrace trace;
  ASSERT_EQ(vcpu.Fault(kVa, kWrite), FaultResult::kFixed);
  EXPECT_NE(vm_.memory.GetEntry(Gfn(kPageDirectory), 0x91) & kD, 0u);
  EXPECT_NE(&LastPage(vcpu), &clean);
  EXPECT_TRUE(clean.parents.empty());
  EXPECT_TRUE(vcpu.Translate(kVa).rights.Has(kMayWrite));
  EXPECT_THAT(trace.gfns(), ElementsAre(GfnRange::Of(Gfn(1024), 512)));
}

// Covers: SHD-48
TEST_F(ShadowFaultsTest, TheFirstWriteToACleanPageSetsTheGuestsDirtyBit) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(600, kGuestPage & ~(kA | kD)));
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  EXPECT_EQ(vm_.memory.GetEntry(Gfn(kPageTable), 0x145) & (kA | kD), kA);
  EXPECT_FALSE(vcpu.Translate(kVa).rights.Has(kMayWrite));
  ASSERT_EQ(vcpu.Fault(kVa, kWrite), FaultResult::kFixed);
  EXPECT_EQ(vm_.memory.GetEntry(Gfn(kPageTable), 0x145) & (kA | kD), kA | kD);
  EXPECT_TRUE(vcpu.Translate(kVa).rights.Has(kMayWrite));
}

// Covers: PF-44
TEST_F(ShadowFaultsTest, AHugePageOverATableUnlinksItAndFlushes) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(1024, kGuestHugePage), 2);
  slot_->lpage_info->Disallow(Gfn(1024));
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  ShadowPageState& small = LastPage(vcpu);
  EXPECT_EQ(small.level(), Level::k4K);
  slot_->lpage_info->Allow(Gfn(1024));
  const FlushTrace trace;
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  EXPECT_EQ(vcpu.Translate(kVa).level, Level::k2M);
  EXPECT_TRUE(small.parents.empty());
  EXPECT_THAT(trace.gfns(), ElementsAre(GfnRange::Of(Gfn(1024), 512)));
  EXPECT_EQ(trace.flushes()[0].depth, FlushDepth::kTables);
}

// Covers: PF-44
TEST_F(ShadowFaultsTest, ALeafThatMapsAnotherFrameIsDroppedAndFlushed) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(600));
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  ASSERT_TRUE(vm_.GuestWrites(kPageTable, 0x145, EntryTo(601)));
  const FlushTrace trace;
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  EXPECT_EQ(vcpu.Translate(kVa).pfn, PfnOf(601));
  EXPECT_THAT(trace.gfns(), ElementsAre(GfnRange::Of(Gfn(600), 1)));
  EXPECT_EQ(Leafs(), 1u);
}

// Covers: PF-44
TEST_F(ShadowFaultsTest, ALeafOfTheSameFrameIsChangedInPlace) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(600, kGuestPage & ~kD));
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  const uint64_t flushes = vm_.Flushes();
  ASSERT_EQ(vcpu.Fault(kVa, kWrite), FaultResult::kFixed);
  EXPECT_TRUE(vcpu.Translate(kVa).rights.Has(kMayWrite));
  EXPECT_EQ(vm_.Flushes(), flushes) << "it only gained";
  EXPECT_EQ(vcpu.Fault(kVa, kWrite), FaultResult::kSpurious);
  EXPECT_EQ(Leafs(), 1u);
}

// --- Rights ---

// Covers: ROLE-07
TEST_F(ShadowFaultsTest, WithoutWpASupervisorsWriteTakesThePageFromTheUser) {
  for (const uint64_t smep : {uint64_t{0}, kCr4Smep}) {
    ShadowTestVcpu vcpu(
        vm_,
        {.cr0 = kCr0Pg, .cr4 = kCr4Pae | smep, .efer = kEferLma | kEferNx});
    MapVa(vcpu, EntryTo(600, kGuestPage & ~kW));
    ASSERT_EQ(vcpu.Fault(kVa, kUserRead), FaultResult::kFixed);
    EXPECT_EQ(vcpu.Translate(kVa).rights, kAllRights.Without(kMayWrite));
    ASSERT_EQ(vcpu.Fault(kVa, kWrite), FaultResult::kFixed);
    EXPECT_EQ(vcpu.Translate(kVa).rights,
              kAllRights.Without(smep != 0 ? kMayUser | kMayExec : kMayUser));
    const FlushTrace trace;
    ASSERT_EQ(vcpu.Fault(kVa, kUserRead), FaultResult::kFixed);
    EXPECT_EQ(vcpu.Translate(kVa).rights, kAllRights.Without(kMayWrite));
    EXPECT_THAT(trace.gfns(), ElementsAre(GfnRange::Of(Gfn(600), 1)))
        << "W went";
  }
}

TEST(AccessOfSupervisorWriteTest, OnlyReadOnlyUserPagesWithoutWpChange) {
  const CpuRole wp = LegacyCpuRole(kFourLevelPaging);
  const CpuRole no_wp = LegacyCpuRole(
      {.cr0 = kCr0Pg, .cr4 = kCr4Pae | kCr4Smep, .efer = kEferLma});
  const AccessRights user = kAllRights.Without(kMayWrite);
  const AccessRights supervisor = user.Without(kMayUser);
  EXPECT_EQ(AccessOfSupervisorWrite(wp, user), user);
  EXPECT_EQ(AccessOfSupervisorWrite(no_wp, kAllRights), kAllRights);
  EXPECT_EQ(AccessOfSupervisorWrite(no_wp, user), kMayRead | kMayWrite);
  EXPECT_EQ(AccessOfSupervisorWrite(no_wp, supervisor), supervisor | kMayWrite);
}

TEST_F(ShadowFaultsTest, TwoWaysToATableWithDifferentRightsHaveTheirOwnPages) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(600));
  // A second entry leads to the page table, without write access.
  vm_.memory.PutEntry(Gfn(kPageDirectory), 0x92,
                      EntryTo(kPageTable, kGuestTable & ~kW));
  constexpr uint64_t kReadOnly = kVa + (1 << 21);
  ASSERT_EQ(vcpu.Fault(kVa, kWrite), FaultResult::kFixed);
  ASSERT_EQ(vcpu.Fault(kReadOnly, kRead), FaultResult::kFixed);
  EXPECT_NE(&LastPage(vcpu), &LastPage(vcpu, kReadOnly));
  EXPECT_EQ(vm_.PagesOf(kPageTable).size(), 2u);
  EXPECT_TRUE(vcpu.Translate(kVa).rights.Has(kMayWrite));
  EXPECT_FALSE(vcpu.Translate(kReadOnly).rights.Has(kMayWrite));
  EXPECT_EQ(vcpu.Fault(kReadOnly, kWrite), std::nullopt);
  // A third entry grants the same rights as the first, so both share one page.
  vm_.memory.PutEntry(Gfn(kPageDirectory), 0x93,
                      EntryTo(kPageTable, kGuestTable));
  constexpr uint64_t kSame = kVa + (2 << 21);
  EXPECT_EQ(vcpu.Fault(kSame, kRead), FaultResult::kSpurious) << "mapped";
  EXPECT_EQ(&LastPage(vcpu, kSame), &LastPage(vcpu));
}

// --- The guest's tables themselves ---

// Covers: SHD-30
TEST_F(ShadowFaultsTest, APageTableBecomesWritableAndUnsync) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(600));
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  vm_.memory.PutEntry(Gfn(kPageTable), 0x155, EntryTo(kPageTable));
  constexpr uint64_t kTableVa = kVa + 0x10000;
  ASSERT_EQ(vcpu.Fault(kTableVa, kWrite), FaultResult::kFixed);
  EXPECT_TRUE(vcpu.Translate(kTableVa).rights.Has(kMayWrite));
  EXPECT_TRUE(vm_.PagesOf(kPageTable)[0]->unsync.load());
  // The guest edits the table without a write fault, and flushes.
  vm_.memory.PutEntry(Gfn(kPageTable), 0x145, 0);
  EXPECT_TRUE(vcpu.Translate(kVa).present);
  ASSERT_TRUE(vcpu.Load().ok());
  EXPECT_FALSE(vcpu.Translate(kVa).present);
  EXPECT_FALSE(vcpu.Translate(kTableVa).rights.Has(kMayWrite))
      << "protected again";
}

TEST_F(ShadowFaultsTest, APageDirectoryStaysWriteProtected) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(kPageDirectory));
  ASSERT_EQ(vcpu.Fault(kVa, kWrite), FaultResult::kWriteProtected);
  EXPECT_TRUE(vcpu.Translate(kVa).present);
  EXPECT_FALSE(vcpu.Translate(kVa).rights.Has(kMayWrite));
  EXPECT_EQ(vcpu.Fault(kVa, kWrite), FaultResult::kWriteProtected);
  EXPECT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kSpurious);
}

TEST_F(ShadowFaultsTest, AFaultThroughAPageTakesBackItsWriteFloodCount) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(600));
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  for (uint64_t table = kTop; table <= kPageTable; ++table) {
    vm_.PagesOf(table)[0]->write_flood_count = 2;
  }
  vcpu.Fault(kVa, kRead);
  for (uint64_t table = kTop; table <= kPageTable; ++table) {
    EXPECT_EQ(vm_.PagesOf(table)[0]->write_flood_count, 0) << table;
  }
}

// --- Prefetch ---

// Covers: SHD-53
TEST_F(ShadowFaultsTest, TheAlignedBlockOfEightEntriesIsPrefetched) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(600));
  for (int i = 0x13f; i <= 0x148; ++i) {
    vm_.memory.PutEntry(Gfn(kPageTable), i,
                        EntryTo(static_cast<uint64_t>(i) + 1000,
                                i == 0x142 ? kGuestPage & ~kD : kGuestPage));
  }
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  EXPECT_EQ(Leafs(), 8u);
  for (uint64_t i = 0x13f; i <= 0x148; ++i) {
    const HardwareTranslation found = vcpu.Translate(kHugeVa + i * kPageSize);
    EXPECT_EQ(found.present, i >= 0x140 && i <= 0x147) << i;
    if (!found.present) continue;
    EXPECT_EQ(found.pfn, PfnOf(i + 1000));
    EXPECT_EQ(vm_.format.IsAccessed(found.spte), i == 0x145) << i;
    EXPECT_EQ(found.rights.Has(kMayWrite), i != 0x142) << "clean";
  }
}

// Covers: SHD-53
TEST_F(ShadowFaultsTest, TheFirstEntryThatCannotBeMappedEndsThePrefetch) {
  constexpr uint64_t kReservedBit = uint64_t{1} << 51;
  for (const uint64_t bad : {uint64_t{0}, EntryTo(601, kGuestPage & ~kA),
                             EntryTo(kHole), EntryTo(601) | kReservedBit}) {
    ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
    MapVa(vcpu, EntryTo(600));
    for (int i = 0x140; i <= 0x147; ++i) {
      vm_.memory.PutEntry(Gfn(kPageTable), i, EntryTo(600));
    }
    vm_.memory.PutEntry(Gfn(kPageTable), 0x142, bad);
    ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
    EXPECT_EQ(Leafs(), 3u) << "0x140, 0x141 and the page itself";
    vcpu.roots().FreeAll(nullptr);
    vm_.FastZap();
  }
}

// Covers: SHD-53
TEST_F(ShadowFaultsTest, NothingIsPrefetchedWhereItWouldNotBeNoticed) {
  const auto leafs_after_fault = [&](uint64_t flags) {
    ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
    MapVa(vcpu, EntryTo(600));
    vm_.memory.PutEntry(Gfn(kPageTable), 0x140, EntryTo(0x1001, flags));
    EXPECT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
    const uint64_t leafs = Leafs();
    vcpu.roots().FreeAll(nullptr);
    vm_.FastZap();
    return leafs;
  };
  EXPECT_EQ(leafs_after_fault(kGuestPage), 2u);
  {
    MmuWriteLocked lock(vm_.mmu_lock, LockOp::kNotifier);
    vm_.invalidations.Begin();
    vm_.invalidations.AddRange(GfnRange::Of(Gfn(0x1001), 1));
  }
  EXPECT_EQ(leafs_after_fault(kGuestPage), 1u) << "an invalidation goes on";
  {
    MmuWriteLocked lock(vm_.mmu_lock, LockOp::kNotifier);
    vm_.invalidations.End();
  }
  LogDirtyPages();
  EXPECT_EQ(leafs_after_fault(kGuestPage), 1u) << "writable, and logged";
  EXPECT_FALSE(slot_->dirty_bitmap->Test(0x1001));
  EXPECT_EQ(leafs_after_fault(kGuestPage & ~kW), 2u);
}

// Covers: SHD-53
TEST_F(ShadowFaultsTest, NothingIsPrefetchedFromASlotThatIsBeingDeleted) {
  Memslot& other = vm_.memory.AddSlot(GfnRange::Of(Gfn(kHole), 512));
  other.flags |= kMemslotInvalid;
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  MapVa(vcpu, EntryTo(600));
  vm_.memory.PutEntry(Gfn(kPageTable), 0x140, EntryTo(kHole));
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  EXPECT_EQ(Leafs(), 1u);
}

// --- Nested guests ---

// Covers: PF-42, ROLE-08
TEST_F(NestedFaultsTest, WithoutAdBitsInEptpLeafsAreOfTypeOneAndNotPrefetched) {
  for (const bool ad_bits : {false, true}) {
    const auto vcpu = EptVcpu({.ad_bits = ad_bits});
    MapVa(*vcpu, EntryTo(600, kEptPage), 1, kEptTable);
    vm_.memory.PutEntry(Gfn(kPageTable), 0x140, EntryTo(601, kEptPage));
    ASSERT_EQ(vcpu->Fault(kVa, kRead), FaultResult::kFixed);
    EXPECT_EQ(Leafs(), ad_bits ? 2u : 1u);
    const Spte spte = vcpu->Translate(kVa).spte;
    const SpteFormat& format =
        ad_bits ? SpteFormat::Ept() : SpteFormat::EptWithoutAd();
    EXPECT_EQ(format.WhyIllegal(spte, Level::k4K), "");
    EXPECT_EQ(format.NeedsWriteProtect(spte), !ad_bits);
    vcpu->roots().FreeAll(nullptr);
    vm_.FastZap();
  }
}

// Covers: SHD-60
TEST_F(NestedFaultsTest, LeafsOfL2AreFoundAndLoggedByL1sGfn) {
  LogDirtyPages();
  const auto vcpu = EptVcpu({.ad_bits = true});
  MapVa(*vcpu, EntryTo(600, kEptPage), 1, kEptTable);
  ASSERT_EQ(vcpu->Fault(kVa, kWrite), FaultResult::kFixed);
  const ShadowPageState& page = LastPage(*vcpu);
  EXPECT_TRUE(page.page->role.guest_mode());
  EXPECT_EQ(page.gfn(), Gfn(kPageTable));
  EXPECT_EQ(vcpu->Translate(kVa).pfn, PfnOf(600));
  EXPECT_TRUE(slot_->dirty_bitmap->Test(600));
  MmuWriteLocked lock(vm_.mmu_lock, LockOp::kFault);
  EXPECT_EQ(slot_->shadow_rmaps()->Head(Gfn(600), Level::k4K).Count(lock), 1u);
}

// --- No memory ---

TEST_F(ShadowFaultsTest, AFaultWithoutASlotInstallsItsMmioSpte) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  vcpu.mmio = Spte(uint64_t{1} << 51 | 1);
  MapVa(vcpu, EntryTo(600));
  ASSERT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
  // The guest has mapped a device there since then, and the table is unsync.
  ASSERT_TRUE(vm_.GuestWrites(kPageTable, 0x145, EntryTo(kHole)));
  const FlushTrace trace;
  EXPECT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kEmulate);
  EXPECT_TRUE(vcpu.fault.mmio_spte_created);
  EXPECT_EQ(vcpu.Translate(kVa).spte, vcpu.mmio);
  EXPECT_THAT(trace.gfns(), ElementsAre(GfnRange::Of(Gfn(600), 1)));
  EXPECT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kEmulate);
  EXPECT_FALSE(vcpu.fault.mmio_spte_created);
  // The guest maps memory there again.
  ASSERT_TRUE(vm_.GuestWrites(kPageTable, 0x145, EntryTo(600)));
  EXPECT_EQ(vcpu.Fault(kVa, kRead), FaultResult::kFixed);
}

}  // namespace
}  // namespace mmu::testing
