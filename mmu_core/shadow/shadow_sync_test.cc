#include "mmu_core/shadow/shadow_sync.h"

#include <cstdint>
#include <ios>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/guest_tables_test_util.h"
#include "mmu_core/testing/interleaving.h"

namespace mmu {
namespace {

using ::mmu::testing::GuestTablesFixture;
using ::mmu::testing::Interleaving;
using ::mmu::testing::kGuestPte;
using ::mmu::testing::kTwoLevelGuest;
using ::mmu::testing::LogDirtyPagesOf;
using ::mmu::testing::TestGuest;

constexpr uint64_t kW = guest_entry::kWritable;
constexpr uint64_t kU = guest_entry::kUser;
constexpr uint64_t kA = guest_entry::kAccessed;
constexpr uint64_t kD = guest_entry::kDirty;
constexpr AccessRights kAllButWrite = kAllRights.Without(kMayWrite);

constexpr uint64_t kTable = 600;  // gfn of a table
constexpr uint64_t kData = 5000;  // a gfn that kTable maps

// A root with one directory, which leads to one page table. Entry 7 of the page
// table maps kData.
class ShadowSyncTest : public ::testing::Test, protected GuestTablesFixture {
 protected:
  ShadowSyncTest() {
    Link(root_, 0, directory_);
    Link(directory_, 0, page_);
    PutAndMap(page_, 7, kData);
  }
  PageSync Sync() { return sync_.SyncPage(lock_, context(), page_, nullptr); }
  // Stores the guest's entry and syncs the page.
  PageSync SyncTo(uint64_t entry) {
    Put(kTable, 7, entry);
    return Sync();
  }
  bool SyncBelow(ShadowSync::MayYield may_yield = ShadowSync::MayYield::kNo) {
    return sync_.SyncChildren(lock_, context(), root_, may_yield, nullptr);
  }
  // More pages than one batch has.
  void MakeTwentyUnsync() {
    for (int i = 0; i < 20; ++i) {
      ShadowPageState& table =
          Page(kTable + 1 + static_cast<uint64_t>(i), RoleAt(1));
      Link(directory_, 1 + i, table);
      MarkUnsync(table);
    }
  }
  Spte Entry() { return page_.EntryAt(7).Load(); }

  const SpteFormat& ept_ = SpteFormat::Ept();
  ShadowPageState& root_ = Page(500, RoleAt(3));
  ShadowPageState& directory_ = Page(501, RoleAt(2));
  ShadowPageState& page_ = Page(kTable, RoleAt(1));
};

// Covers: SHD-33
TEST_F(ShadowSyncTest, AnEntryThatIsWhatItWasStays) {
  const Spte before = Entry();
  EXPECT_EQ(Sync(), PageSync::kUnchanged);
  EXPECT_EQ(Entry(), before);
}

// Covers: SHD-33
TEST_F(ShadowSyncTest, AnEntryThatMapsNoMoreOrSomethingElseIsDropped) {
  for (const uint64_t entry :
       {uint64_t{0},  // cleared
        kData << kPageShift | (kGuestPte & ~guest_entry::kPresent),
        kData << kPageShift | kGuestPte | uint64_t{1} << 51,  // reserved
        kData << kPageShift | (kGuestPte & ~kA),              // not accessed
        (kData + 1) << kPageShift | kGuestPte}) {             // another gfn
    EXPECT_EQ(SyncTo(entry), PageSync::kNeedsFlush) << std::hex << entry;
    EXPECT_EQ(Entry(), Spte::Initial());
    EXPECT_EQ(RmapCount(kData), 0u);
    EXPECT_EQ(SyncTo(entry), PageSync::kUnchanged) << "nothing is there";
    PutAndMap(page_, 7, kData);
  }
}

// Covers: SHD-33
TEST_F(ShadowSyncTest, AnEntryThatGrantsLessLosesWAndTheTlbsAreToBeFlushed) {
  EXPECT_EQ(SyncTo(kData << kPageShift | (kGuestPte & ~kW)),
            PageSync::kNeedsFlush);
  EXPECT_FALSE(Entry().IsWritable());
  EXPECT_FALSE(ept_.IsMmuWritable(Entry()));
  EXPECT_TRUE(ept_.IsHostWritable(Entry()));
  EXPECT_TRUE(ept_.IsAccessed(Entry()));
  EXPECT_EQ(page_.TranslationOf(7).access, kAllButWrite);
  EXPECT_EQ(RmapCount(kData), 1u) << "it still maps the page";

  EXPECT_EQ(SyncTo(kData << kPageShift | kGuestPte), PageSync::kUnchanged)
      << "who has more now will find out by a fault";
  EXPECT_TRUE(Entry().IsWritable());
  EXPECT_EQ(page_.TranslationOf(7).access, kAllRights);

  EXPECT_EQ(SyncTo(kData << kPageShift | (kGuestPte & ~kU)),
            PageSync::kUnchanged);
  EXPECT_FALSE(ept_.RightsOf(Entry()).Has(kMayUser));
  EXPECT_TRUE(Entry().IsWritable());
}

// Covers: SHD-33, SHD-48
TEST_F(ShadowSyncTest, ACleanEntryIsMappedReadOnly) {
  EXPECT_EQ(SyncTo(kData << kPageShift | (kGuestPte & ~kD)),
            PageSync::kNeedsFlush);
  EXPECT_FALSE(Entry().IsWritable());
  EXPECT_EQ(page_.TranslationOf(7).access, kAllButWrite);
}

// The SPTE of a logged page is made writable by a fault, which marks the page.
// Covers: DL-18, DL-42
TEST_F(ShadowSyncTest, AnEntryThatGainsWInALoggedSlotIsDropped) {
  ASSERT_EQ(SyncTo(kData << kPageShift | (kGuestPte & ~kW)),
            PageSync::kNeedsFlush);
  LogDirtyPagesOf(vm_.slot(0));
  EXPECT_EQ(SyncTo(kData << kPageShift | kGuestPte), PageSync::kNeedsFlush);
  EXPECT_EQ(Entry(), Spte::Initial());
  EXPECT_FALSE(vm_.SlotOf(0, Gfn(kData))->dirty_bitmap->Test(kData));
}

TEST_F(ShadowSyncTest, ThePageAboveLimitsWhatAnEntryGrants) {
  ShadowPageState& limited = Page(kTable + 1, RoleAt(1, kAllButWrite));
  PutAndMap(limited, 0, kData + 1);
  EXPECT_EQ(sync_.SyncPage(lock_, context(), limited, nullptr),
            PageSync::kUnchanged);
  EXPECT_EQ(limited.TranslationOf(0).access, kAllButWrite);
}

// An SPTE that is read-only for the host stays read-only, whatever the guest
// grants.
TEST_F(ShadowSyncTest, TheHostsWordIsKept) {
  pages_.links().DropLeaf(lock_, page_.EntryAt(7));
  pages_.links().AddLeaf(lock_, page_.EntryAt(7),
                         ept_.MakeLeaf({.pfn = Pfn(kData),
                                        .write = true,
                                        .host_writable = HostWritable::kNo}),
                         {Gfn(kData), kAllRights.Without(kMayUser)},
                         Rmaps(kData), caches_.lists, nullptr);
  EXPECT_EQ(Sync(), PageSync::kUnchanged);
  EXPECT_EQ(ept_.TripleOf(Entry()), (WriteTriple{false, false, false}));
  EXPECT_TRUE(ept_.RightsOf(Entry()).Has(kMayUser)) << "but it was made anew";
}

TEST_F(ShadowSyncTest, AnMmioEntryGoesWithoutAFlush) {
  const Spte mmio(uint64_t{6} | kData << kPageShift);
  ASSERT_FALSE(mmio.IsPresent());
  page_.EntryAt(8).Store(mmio);
  EXPECT_EQ(Sync(), PageSync::kUnchanged);
  EXPECT_EQ(page_.EntryAt(8).Load(), Spte::Initial());
}

// An EPT guest. The table above grants only execution and the entry grants
// everything else, so together they grant nothing.
TEST_F(ShadowSyncTest,
       AnEntryThatGrantsNothingTogetherWithThoseAboveIsDropped) {
  const CpuRole role = EptCpuRole({.exec_only = true}, 0);
  TestGuest ept(GuestWalker(GuestTables::kEpt, role, {}),
                ShadowEptRootRole(role), memory_.words(), caches_);
  PageRole::Fields fields = ShadowEptRootRole(role).fields();
  fields.level = 1;
  fields.access = kMayExec;
  ShadowPageState& page = Page(kTable + 1, PageRole::Of(fields));
  Map(page, 0, kData + 1);
  Put(kTable + 1, 0, (kData + 1) << kPageShift | 4);
  EXPECT_EQ(sync_.SyncPage(lock_, ept.context, page, nullptr),
            PageSync::kUnchanged);
  Put(kTable + 1, 0, (kData + 1) << kPageShift | 3);
  EXPECT_EQ(sync_.SyncPage(lock_, ept.context, page, nullptr),
            PageSync::kNeedsFlush);
  EXPECT_EQ(page.EntryAt(0).Load(), Spte::Initial());
}

// Covers: SHD-33
TEST_F(ShadowSyncTest, APageOfAnotherWayOfPagingCannotBeBroughtInStep) {
  PageRole::Fields fields = RoleAt(1).fields();
  fields.cr0_wp = !fields.cr0_wp;
  ShadowPageState& other = Page(kTable + 1, PageRole::Of(fields));
  PutAndMap(other, 0, kData + 1);
  EXPECT_EQ(sync_.SyncPage(lock_, context(), other, nullptr),
            PageSync::kFailed);
  EXPECT_EQ(sync_.SyncEntry(lock_, context(), other, 0, nullptr),
            PageSync::kFailed);

  TestGuest unpaged(GuestWalker(), RoleAt(3), memory_.words(), caches_);
  EXPECT_EQ(sync_.SyncPage(lock_, unpaged.context, page_, nullptr),
            PageSync::kFailed);
}

TEST_F(ShadowSyncTest, ATableThatCannotBeReadIsAFailure) {
  constexpr uint64_t kNoContents = 2000;
  ShadowPageState& page = Page(kNoContents, RoleAt(1));
  Map(page, 0, kData);
  EXPECT_EQ(sync_.SyncPage(lock_, context(), page, nullptr), PageSync::kFailed);
}

TEST_F(ShadowSyncTest, OneEntryAloneIsBroughtInStep) {
  PutAndMap(page_, 8, kData + 1);
  Put(kTable, 7, 0);
  Put(kTable, 8, 0);
  EXPECT_EQ(sync_.SyncEntry(lock_, context(), page_, 7, nullptr),
            PageSync::kNeedsFlush);
  EXPECT_EQ(Entry(), Spte::Initial());
  EXPECT_TRUE(page_.EntryAt(8).Load().IsPresent());
  EXPECT_EQ(sync_.SyncEntry(lock_, context(), page_, 7, nullptr),
            PageSync::kUnchanged);
}

// Covers: SHD-35
TEST_F(ShadowSyncTest, NoPageBecomesUnsyncForAnEntryThatIsBroughtInStep) {
  ShadowPageState& table = Page(kData, RoleAt(1));
  ASSERT_FALSE(Entry().IsWritable()) << "protected, for it has a table";
  // The guest changes a right other than W, so the sync makes the SPTE again.
  EXPECT_EQ(SyncTo(kData << kPageShift | (kGuestPte & ~kU)),
            PageSync::kUnchanged);
  EXPECT_FALSE(Entry().IsWritable());
  EXPECT_FALSE(table.unsync);
}

// --- Sync of all pages below a page ---

// Covers: SHD-34
TEST_F(ShadowSyncTest, UnsyncPagesBelowAreProtectedReadAndInStep) {
  ShadowPageState& alias = Page(502, RoleAt(1));
  PutAndMap(alias, 0, kTable);  // an entry of the guest maps its table
  ASSERT_TRUE(gate_.MayMapWritable(lock_, *vm_.SlotOf(0, Gfn(kTable)),
                                   Gfn(kTable), Prefetched::kNo));
  ASSERT_TRUE(page_.unsync);
  ASSERT_TRUE(alias.EntryAt(0).Load().IsWritable());
  Put(kTable, 7, 0);
  const uint64_t flushes = Flushes();
  vm_.protected_gfns.clear();

  EXPECT_TRUE(SyncBelow());
  EXPECT_EQ(Entry(), Spte::Initial());
  EXPECT_FALSE(page_.unsync);
  EXPECT_EQ(root_.unsync_children, 0u);
  EXPECT_FALSE(alias.EntryAt(0).Load().IsWritable());
  EXPECT_THAT(vm_.protected_gfns, ::testing::ElementsAre(Gfn(kTable)))
      << "in the other MMUs, too";
  EXPECT_EQ(Flushes(), flushes + 2) << "protected; dropped";

  EXPECT_TRUE(SyncBelow());
  EXPECT_EQ(Flushes(), flushes + 2) << "nothing to do";
}

// Covers: SHD-34
TEST_F(ShadowSyncTest, ManyPagesAreProtectedBatchByBatch) {
  std::vector<ShadowPageState*> tables;
  for (int i = 0; i < 20; ++i) {
    const auto gfn = kTable + 1 + static_cast<uint64_t>(i);
    ShadowPageState& table = Page(gfn, RoleAt(1));
    Link(directory_, 1 + i, table);
    PutAndMap(table, 0, kData + 1 + static_cast<uint64_t>(i));
    Put(gfn, 0, 0);
    MarkUnsync(table);
    tables.push_back(&table);
  }
  vm_.protected_gfns.clear();
  const uint64_t flushes = Flushes();
  EXPECT_TRUE(SyncBelow());
  EXPECT_EQ(Flushes(), flushes + 2) << "one for 16 pages, one for 4";
  EXPECT_EQ(vm_.protected_gfns.size(), 20u);
  for (ShadowPageState* table : tables) {
    EXPECT_FALSE(table->unsync);
    EXPECT_EQ(table->EntryAt(0).Load(), Spte::Initial());
  }
}

// Covers: SHD-33
TEST_F(ShadowSyncTest, WhatCannotBeBroughtInStepIsZapped) {
  PageRole::Fields fields = RoleAt(1).fields();
  fields.cr0_wp = !fields.cr0_wp;
  ShadowPageState& other = Page(kTable + 1, PageRole::Of(fields));
  PutAndMap(other, 0, kData + 1);
  Link(directory_, 1, other);
  MarkUnsync(other);
  MarkUnsync(page_);
  const uint64_t in_use = pages_.in_use();
  EXPECT_TRUE(SyncBelow());
  EXPECT_EQ(pages_.in_use(), in_use - 1);
  EXPECT_FALSE(directory_.EntryAt(1).Load().IsPresent());
  EXPECT_TRUE(directory_.EntryAt(0).Load().IsPresent());
}

// Covers: SHD-34
TEST_F(ShadowSyncTest, WhoMayNotYieldStopsBetweenBatchesIfOthersWait) {
  MakeTwentyUnsync();
  const auto unsync = [&] { return ShadowCounters::Get(stats().mmu_unsync); };
  {
    std::thread waiter(
        [this] { MmuWriteLocked wanted(mmu_lock_, LockOp::kNotifier); });
    while (!lock_.NeedYield()) std::this_thread::yield();
    EXPECT_FALSE(SyncBelow(ShadowSync::MayYield::kNo));
    EXPECT_EQ(unsync(), 4u) << "one batch";
    EXPECT_TRUE(SyncBelow(ShadowSync::MayYield::kYes));
    EXPECT_EQ(unsync(), 0u);
    WithoutLock([&] { waiter.join(); });
  }
}

// Covers: SHD-34
TEST_F(ShadowSyncTest, WhoWaitsGetsTheLockBetweenTwoBatches) {
  MakeTwentyUnsync();
  uint64_t unsync = 99;
  std::thread waiter([&] {
    MmuWriteLocked wanted(mmu_lock_, LockOp::kNotifier);
    unsync = ShadowCounters::Get(stats().mmu_unsync);
  });
  while (!lock_.NeedYield()) std::this_thread::yield();
  EXPECT_TRUE(SyncBelow(ShadowSync::MayYield::kYes));
  WithoutLock([&] { waiter.join(); });
  EXPECT_EQ(unsync, 4u) << "after one batch";
}

// Covers: ROLE-35
TEST_F(ShadowSyncTest, APassthroughPageLeadsToUnsyncPagesButIsNoTable) {
  PageRole::Fields fields = RoleAt(5).fields();
  fields.passthrough = true;
  ShadowPageState& passthrough = Page(502, PageRole::Of(fields));
  ShadowPageState& top = Page(502, RoleAt(4));
  Link(passthrough, 0, top);
  Link(top, 0, root_);
  MarkUnsync(page_);
  Put(kTable, 7, 0);
  EXPECT_TRUE(sync_.SyncChildren(lock_, context(), passthrough,
                                 ShadowSync::MayYield::kNo, nullptr));
  EXPECT_EQ(Entry(), Spte::Initial());
  EXPECT_EQ(passthrough.unsync_children, 0u);
  EXPECT_DEATH(sync_.SyncPage(lock_, context(), passthrough, nullptr),
               "HasGuestPtes");
}

// --- Guests with entries of four bytes ---

class TwoLevelSyncTest : public ::testing::Test, protected GuestTablesFixture {
 protected:
  TwoLevelSyncTest() : GuestTablesFixture(kTwoLevelGuest) {}
};

TEST_F(TwoLevelSyncTest, TheSecondQuadrantStandsForTheSecondHalfOfTheTable) {
  ShadowPageState& low = Page(kTable, RoleAt(1, kAllRights, 0));
  ShadowPageState& high = Page(kTable, RoleAt(1, kAllRights, 1));
  Map(low, 7, kData);
  Map(high, 7, kData);
  Put(kTable, 7, kData << kPageShift | kGuestPte);
  Put(kTable, 512 + 7, kData << kPageShift | kGuestPte);
  EXPECT_EQ(sync_.SyncPage(lock_, context(), high, nullptr),
            PageSync::kUnchanged);
  Put(kTable, 512 + 7, 0);
  EXPECT_EQ(sync_.SyncPage(lock_, context(), low, nullptr),
            PageSync::kUnchanged);
  EXPECT_EQ(sync_.SyncPage(lock_, context(), high, nullptr),
            PageSync::kNeedsFlush);
}

// --- RACE-34 of mmu_core/LOCKING.md ---

// Entry 0 of another table maps the guest's table writably.
class ShadowSyncRaceTest : public ShadowSyncTest {
 protected:
  ShadowSyncRaceTest() {
    PutAndMap(alias_, 0, kTable);
    MarkUnsync(page_);
    MMU_CHECK(AliasSpte().IsWritable());
  }
  Spte AliasSpte() { return alias_.EntryAt(0).Load(); }
  // A write to the table takes the slow fault path.
  void FaultOnTable() {
    MmuReadLocked lock(mmu_lock_, LockOp::kFault);
    Spte spte = AliasSpte();
    if (gate_.MayMapWritable(lock, *vm_.SlotOf(0, Gfn(kTable)), Gfn(kTable),
                             Prefetched::kNo)) {
      alias_.EntryAt(0).CompareExchange(spte, LeafTo(alias_, kTable));
    }
  }
  void SyncUnderLock() {
    MmuWriteLocked lock(mmu_lock_, LockOp::kFault);
    synced_ = sync_.SyncChildren(lock, context(), root_,
                                 ShadowSync::MayYield::kNo, nullptr);
  }

  ShadowPageState& alias_ = Page(502, RoleAt(1));
  bool synced_ = false;
};

// Steps 2 and 4: the sync reads all that the guest has written until the flush.
TEST_F(ShadowSyncRaceTest, Race34AWriteUntilTheFlushIsRead) {
  const uint64_t flushes = Flushes();
  WithoutLock([&] {
    Interleaving threads;
    threads.Add("sync", [&] { SyncUnderLock(); });
    threads.RunTo("sync", HookPoint::kProtectToRead);
    EXPECT_EQ(Flushes(), flushes + 1) << "no TLB allows the write any more";
    EXPECT_TRUE(Entry().IsPresent());
    EXPECT_FALSE(ept_.IsMmuWritable(AliasSpte()));
    EXPECT_FALSE(AliasSpte().IsWritable());
    Put(kTable, 7, 0);
    threads.RunToEnd("sync");
  });
  EXPECT_TRUE(synced_);
  EXPECT_EQ(Entry(), Spte::Initial());
}

// Steps 3 and 5: a fast fault fails, and a slow fault waits until the sync has
// read the table. The next sync reads later writes.
TEST_F(ShadowSyncRaceTest, Race34AFaultInBetweenMakesThePageUnsyncAgain) {
  // The slot is logged, so a fast fault could give W back.
  Spte logged = AliasSpte().Without(spte_bits::kWrite);
  alias_.EntryAt(0).Store(logged);
  ASSERT_TRUE(ept_.IsMmuWritable(logged));
  WithoutLock([&] {
    Interleaving threads;
    threads.Add("sync", [&] { SyncUnderLock(); });
    threads.Add("fault", [&] { FaultOnTable(); });
    threads.RunTo("sync", HookPoint::kProtectToRead);
    // This fast fault has read the SPTE before the sync.
    EXPECT_FALSE(
        alias_.EntryAt(0).CompareExchange(logged, ept_.WithWrite(logged)));
    EXPECT_FALSE(ept_.IsMmuWritable(logged)) << "nor does another one";
    threads.Start("fault");  // waits for mmu_lock
    EXPECT_FALSE(AliasSpte().IsWritable());
    threads.RunToEnd("sync");
    threads.WaitForEnd("fault");
  });
  EXPECT_TRUE(Entry().IsPresent());
  EXPECT_TRUE(page_.unsync);
  EXPECT_EQ(root_.unsync_children, 1u);
  EXPECT_TRUE(AliasSpte().IsWritable());
  Put(kTable, 7, 0);
  EXPECT_TRUE(SyncBelow());
  EXPECT_EQ(Entry(), Spte::Initial());
}

}  // namespace
}  // namespace mmu
