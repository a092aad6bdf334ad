#include "mmu_core/shadow/guest_pte_writes.h"

#include <atomic>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/testing/guest_tables_test_util.h"
#include "mmu_core/testing/interleaving.h"

namespace mmu {
namespace {

using ::mmu::testing::GuestTablesFixture;
using ::mmu::testing::Interleaving;
using ::mmu::testing::kFourLevelGuest;
using ::mmu::testing::kGuestPte;
using ::mmu::testing::kTwoLevelGuest;
using ::mmu::testing::PassthroughRole;

constexpr uint64_t kTable = 600;  // gfn of a table
constexpr uint64_t kData = 5000;  // a gfn that kTable maps

class GuestPteWritesTest : public ::testing::Test,
                           protected GuestTablesFixture {
 protected:
  explicit GuestPteWritesTest(const GuestPagingState& state = kFourLevelGuest,
                              TdpEnabled tdp = TdpEnabled::kNo)
      : GuestTablesFixture(state, tdp) {}

  // Handles a guest's write of `bytes` at `offset` of kTable. The test has
  // stored the value before.
  void Wrote(uint64_t offset, int bytes, int as_id = 0) {
    WithoutLock([&] {
      writes_.Written(as_id, ToGpa(Gfn(kTable)) + offset, bytes,
                      memory_.words(), nullptr);
    });
  }
  bool Present(ShadowPageState& page, int index) {
    return page.EntryAt(index).Load().IsPresent();
  }
  static uint64_t Get(const std::atomic<uint64_t>& counter) {
    return ShadowCounters::Get(counter);
  }

  GuestPteWrites writes_{Parts(), mmu_lock_, pages_};
};

// Covers: SHD-40
TEST_F(GuestPteWritesTest, WithoutIndirectPagesNothingIsLookedAt) {
  Page(kTable, PassthroughRole());
  {
    Interleaving threads;
    threads.Add("write", [&] {
      writes_.Written(0, ToGpa(Gfn(kTable)), 8, memory_.words(), nullptr);
    });
    threads.RunToEnd("write");  // the test still holds mmu_lock
    for (const HookPoint point : threads.Trace("write")) {
      EXPECT_NE(point, HookPoint::kWriteLocked);
    }
  }
  EXPECT_EQ(Get(stats().mmu_pte_write), 0u);
}

// Covers: SHD-40, SHD-42, STAT-04
TEST_F(GuestPteWritesTest, TheEntryThatWasWrittenGoesInAllPages) {
  ShadowPageState& one = Page(kTable, RoleAt(1));
  ShadowPageState& two = Page(kTable, RoleAt(1, kAllRights.Without(kMayWrite)));
  ShadowPageState& neighbour = Page(kTable + 1, RoleAt(1));
  for (ShadowPageState* page : {&one, &two, &neighbour}) {
    Map(*page, 7, kData);
    Map(*page, 8, kData + 1);
  }
  const uint64_t flushes = Flushes();
  Wrote(7 * 8, 8);
  EXPECT_FALSE(Present(one, 7));
  EXPECT_FALSE(Present(two, 7));
  EXPECT_TRUE(Present(one, 8));
  EXPECT_TRUE(Present(two, 8));
  EXPECT_TRUE(Present(neighbour, 7));
  EXPECT_EQ(RmapCount(kData), 1u);
  EXPECT_EQ(Flushes(), flushes + 1) << "one for all";
  EXPECT_EQ(Get(stats().mmu_pte_write), 1u) << "once per write";
  EXPECT_EQ(Get(stats().mmu_pde_zapped), 0u) << "of level 1";

  Wrote(7 * 8, 8);
  EXPECT_EQ(Flushes(), flushes + 1) << "nothing was mapped";
  EXPECT_EQ(Get(stats().mmu_pte_write), 2u);
  Wrote(0x1000 + 7 * 8, 8);
  EXPECT_FALSE(Present(neighbour, 7));
}

TEST_F(GuestPteWritesTest, AnMmioEntryGoesWithoutAFlush) {
  ShadowPageState& page = Page(kTable, RoleAt(1));
  page.EntryAt(7).Store(Spte(uint64_t{6} | kData << kPageShift));
  const uint64_t flushes = Flushes();
  Wrote(7 * 8, 8);
  EXPECT_EQ(page.EntryAt(7).Load(), Spte::Initial());
  EXPECT_EQ(Flushes(), flushes);
}

// Covers: SHD-42, STAT-05
TEST_F(GuestPteWritesTest, ADirectorysEntriesAreCountedIfTheyAreNotCleared) {
  ShadowPageState& directory = Page(kTable, RoleAt(2));
  ShadowPageState& table = Page(kTable + 1, RoleAt(1));
  Link(directory, 7, table);
  Put(kTable, 7, 0);
  Wrote(7 * 8, 8);
  EXPECT_FALSE(Present(directory, 7));
  EXPECT_TRUE(table.parents.empty());
  EXPECT_FALSE(table.IsInvalid()) << "it may be found again";
  EXPECT_EQ(Get(stats().mmu_pde_zapped), 0u);

  Put(kTable, 7, (kTable + 1) << kPageShift | kGuestPte);
  Wrote(7 * 8, 8);
  EXPECT_EQ(Get(stats().mmu_pde_zapped), 1u) << "though nothing was there";
}

// Covers: SHD-41, STAT-06
TEST_F(GuestPteWritesTest, AnUpperPageGoesWithTheThirdWriteWithoutUse) {
  ShadowPageState* directory = &Page(kTable, RoleAt(2));
  ShadowPageState* table = &Page(kTable + 1, RoleAt(1));
  const uint64_t in_use = pages_.in_use();
  Wrote(0, 8);
  Wrote(8, 8);
  EXPECT_EQ(&Page(kTable, RoleAt(2)), directory) << "used";
  Wrote(0, 8);
  Wrote(8, 8);
  EXPECT_EQ(Get(stats().mmu_flooded), 0u);
  EXPECT_EQ(pages_.in_use(), in_use);
  const uint64_t flushes = Flushes();
  Wrote(16, 8);
  EXPECT_EQ(Get(stats().mmu_flooded), 1u);
  EXPECT_EQ(pages_.in_use(), in_use - 1);
  EXPECT_EQ(Flushes(), flushes + 1);
  EXPECT_FALSE(Rmaps(kTable).IsWriteTracked(Gfn(kTable)));

  for (int i = 0; i < 5; ++i) Wrote(0x1000, 8);
  EXPECT_FALSE(table->IsInvalid()) << "it would become unsync";
  EXPECT_EQ(Get(stats().mmu_flooded), 1u);
}

// Covers: SHD-41
TEST_F(GuestPteWritesTest, AMisalignedWriteZapsThePage) {
  struct Row {
    uint64_t offset;
    int bytes;
    bool zaps;
  };
  uint64_t flooded = 0;
  for (const Row& row :
       {Row{7 * 8, 8, false}, Row{7 * 8, 4, false}, Row{7 * 8 + 4, 4, false},
        Row{7 * 8, 1, false}, Row{7 * 8 + 1, 1, true}, Row{7 * 8 + 4, 1, true},
        Row{7 * 8, 2, true}, Row{7 * 8 + 2, 2, true}, Row{7 * 8 + 4, 8, true},
        Row{7 * 8 + 6, 4, true}, Row{7 * 8 + 2, 4, false}}) {
    ShadowPageState& page = Page(kTable, RoleAt(1));
    if (!Present(page, 7)) Map(page, 7, kData);
    const uint64_t in_use = pages_.in_use();
    Wrote(row.offset, row.bytes);
    EXPECT_EQ(RmapCount(kData), 0u) << row.offset << " " << row.bytes;
    flooded += row.zaps ? 1 : 0;
    EXPECT_EQ(pages_.in_use(), in_use - (row.zaps ? 1 : 0))
        << row.offset << " " << row.bytes;
    EXPECT_EQ(Get(stats().mmu_flooded), flooded);
  }
}

// Covers: SHD-43
TEST_F(GuestPteWritesTest, HalfOfAnEntryIsTakenForTheWholeOne) {
  ShadowPageState& directory = Page(kTable, RoleAt(2));
  ShadowPageState& table = Page(kTable + 1, RoleAt(1));
  Link(directory, 7, table);
  // The write changes only the upper half, and the lower half is not 0.
  Put(kTable, 7, (kTable + 1) << kPageShift | kGuestPte);
  Wrote(7 * 8 + 4, 4);
  EXPECT_FALSE(Present(directory, 7));
  EXPECT_EQ(Get(stats().mmu_pde_zapped), 1u);
}

TEST_F(GuestPteWritesTest, PagesOfAnotherAddressSpaceStay) {
  vm_.AddSlot(1, GfnRange::Of(Gfn(0), 1024));
  PageRole::Fields fields = RoleAt(1).fields();
  fields.as_id = 1;
  ShadowPageState& smm = Page(kTable, PageRole::Of(fields));
  smm.EntryAt(7).Store(Spte(6));
  Wrote(7 * 8, 8, 0);
  EXPECT_NE(smm.EntryAt(7).Load(), Spte::Initial());
  Wrote(7 * 8, 8, 1);
  EXPECT_EQ(smm.EntryAt(7).Load(), Spte::Initial());
}

// --- Nested guests: the children of an entry are zapped with it ---

class NestedPteWritesTest : public GuestPteWritesTest {
 protected:
  NestedPteWritesTest()
      : GuestPteWritesTest({.cr0 = kFourLevelGuest.cr0,
                            .cr4 = kFourLevelGuest.cr4,
                            .efer = kFourLevelGuest.efer,
                            .guest_mode = true},
                           TdpEnabled::kYes) {}
};

TEST_F(NestedPteWritesTest, AWriteOfL1ToADirectoryOfL2ZapsWhatHungThere) {
  ShadowPageState& directory = Page(kTable, RoleAt(2));
  ShadowPageState& table = Page(kTable + 1, RoleAt(1));
  Link(directory, 7, table);
  Map(table, 0, kData);
  const uint64_t in_use = pages_.in_use();
  const uint64_t flushes = Flushes();
  Wrote(7 * 8, 8);
  EXPECT_EQ(pages_.in_use(), in_use - 1);
  EXPECT_EQ(RmapCount(kData), 0u);
  EXPECT_EQ(Flushes(), flushes + 1);
}

// --- Guests with entries of four bytes ---

class TwoLevelPteWritesTest : public GuestPteWritesTest {
 protected:
  TwoLevelPteWritesTest() : GuestPteWritesTest(kTwoLevelGuest) {}
};

// Covers: SHD-43, ROLE-14
TEST_F(TwoLevelPteWritesTest, ADirectorysEntryIsTwoSptesOfOneQuadrant) {
  std::vector<ShadowPageState*> quadrants;
  for (int q = 0; q < 4; ++q) {
    quadrants.push_back(&Page(kTable, RoleAt(2, kAllRights, q)));
    ShadowPageState& even = Page(kTable + 1, RoleAt(1, kAllRights, 0));
    ShadowPageState& odd = Page(kTable + 1, RoleAt(1, kAllRights, 1));
    Link(*quadrants.back(), 14, even);
    Link(*quadrants.back(), 15, odd);
    Link(*quadrants.back(), 16, even);
  }
  // Entry 256 + 7 is in the second quadrant; its SPTEs are 14 and 15.
  Put(kTable, 256 + 7, (kTable + 1) << kPageShift | kGuestPte);
  Wrote((256 + 7) * 4, 4);
  for (int q = 0; q < 4; ++q) {
    EXPECT_EQ(Present(*quadrants[q], 14), q != 1) << q;
    EXPECT_EQ(Present(*quadrants[q], 15), q != 1) << q;
    EXPECT_TRUE(Present(*quadrants[q], 16)) << q;
  }
  EXPECT_EQ(Get(stats().mmu_pde_zapped), 2u);
}

// Covers: SHD-43, ROLE-14
TEST_F(TwoLevelPteWritesTest, ATablesEntryIsOneSpte) {
  ShadowPageState& low = Page(kTable, RoleAt(1, kAllRights, 0));
  ShadowPageState& high = Page(kTable, RoleAt(1, kAllRights, 1));
  Map(low, 7, kData);
  Map(high, 7, kData);
  Map(high, 8, kData);
  Wrote((512 + 7) * 4, 4);
  EXPECT_TRUE(Present(low, 7));
  EXPECT_FALSE(Present(high, 7));
  EXPECT_TRUE(Present(high, 8)) << "four bytes are a whole entry";
  Wrote(7 * 4, 8);
  EXPECT_EQ(Get(stats().mmu_flooded), 2u) << "two entries at once";
}

}  // namespace
}  // namespace mmu
