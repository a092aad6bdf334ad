// Accesses through shadow tables when two mappings or two paging modes lead to
// the same page or table. These are the directed cases of the access test of
// kvm-unit-tests (TST-40).

#include <cstdint>
#include <optional>

#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/testing/shadow_vcpu_test_util.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kW = guest_entry::kWritable;
constexpr uint64_t kU = guest_entry::kUser;
constexpr uint64_t kD = guest_entry::kDirty;

constexpr GuestPageAccess kRead = {.kind = AccessKind::kRead};
constexpr GuestPageAccess kWrite = {.kind = AccessKind::kWrite};
constexpr GuestPageAccess kExec = {.kind = AccessKind::kExec};
constexpr GuestPageAccess kUserRead = {.kind = AccessKind::kRead,
                                       .privilege = Privilege::kUser};
constexpr GuestPageAccess kUserWrite = {.kind = AccessKind::kWrite,
                                        .privilege = Privilege::kUser};
constexpr GuestPageAccess kUserExec = {.kind = AccessKind::kExec,
                                       .privilege = Privilege::kUser};

constexpr GuestPagingState kWithoutWp = {
    .cr0 = kCr0Pg, .cr4 = kCr4Pae, .efer = kEferLma | kEferNx};
constexpr GuestPagingState kSmepWithoutWp = {
    .cr0 = kCr0Pg, .cr4 = kCr4Pae | kCr4Smep, .efer = kEferLma | kEferNx};

constexpr uint64_t kVa1 = 0x123400000000;
constexpr uint64_t kVa2 = 0x666600000000;
// The guest's tables on the way to kVa1 and kVa2 begin here. Both share the top
// table.
constexpr uint64_t kTop = 10;
constexpr uint64_t kTables1 = 20;
constexpr uint64_t kTables2 = 30;
constexpr uint64_t kHugePage = 1024;

class ShadowAccessTest : public ::testing::Test {
 protected:
  ShadowAccessTest() : vm_({}) {
    vm_.memory.AddSlot(GfnRange::Of(Gfn(0), 8192), Level::k2M);
  }
  ~ShadowAccessTest() override { EXPECT_EQ(vm_.AuditFindings(), ""); }

  // Maps `address` with the tables at `tables` + 1, `tables` + 2 and so on.
  void Map(ShadowTestVcpu& vcpu, uint64_t address, uint64_t tables,
           uint64_t leaf, int level) {
    const GuestWalker& walker = vcpu.guest().walker;
    PutPath(vm_.memory, walker, tables, address, leaf, level);
    const int index = IndexOf(Gfn(address >> kPageShift), Level::k512G);
    vm_.memory.PutEntry(Gfn(kTop), index, EntryTo(tables + 1, kGuestTable));
    vcpu.LoadCr3(Gfn(kTop));
  }

  // Does an access, with all faults that it needs. Returns the error code if
  // the guest gets a fault of its own.
  static std::optional<uint64_t> Do(ShadowTestVcpu& vcpu, uint64_t address,
                                    const GuestPageAccess& access) {
    if (!vcpu.Fault(address, access).has_value()) return vcpu.walk.fault.code;
    const AccessRights rights = vcpu.Translate(address).rights;
    EXPECT_TRUE(vcpu.Translate(address).present);
    if (access.kind == AccessKind::kWrite) {
      EXPECT_TRUE(rights.Has(kMayWrite));
    }
    if (access.kind == AccessKind::kExec) {
      EXPECT_TRUE(rights.Has(kMayExec));
    }
    if (access.privilege == Privilege::kUser) {
      EXPECT_TRUE(rights.Has(kMayUser));
    }
    return std::nullopt;
  }
  uint64_t PageDirectoryEntry(uint64_t tables, uint64_t address) {
    return vm_.memory.GetEntry(Gfn(tables + 2),
                               IndexOf(Gfn(address >> kPageShift), Level::k2M));
  }

  ShadowTestVm vm_;
};

// Covers: TST-40
TEST_F(ShadowAccessTest, AHugePageMappedTwiceKeepsTheRightsOfEachMapping) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  Map(vcpu, kVa2, kTables2, EntryTo(kHugePage, kGuestHugePage & ~kW), 2);
  EXPECT_EQ(Do(vcpu, kVa2, kRead), std::nullopt);
  Map(vcpu, kVa1, kTables1, EntryTo(kHugePage, kGuestHugePage), 2);
  EXPECT_EQ(Do(vcpu, kVa1, kRead), std::nullopt);
  EXPECT_EQ(Do(vcpu, kVa1, kWrite), std::nullopt);
  EXPECT_EQ(Do(vcpu, kVa2, kWrite), kPferrPresent | kPferrWrite);
  EXPECT_FALSE(vcpu.Translate(kVa2).rights.Has(kMayWrite));
  EXPECT_EQ(vcpu.Translate(kVa1).pfn, vcpu.Translate(kVa2).pfn);
  EXPECT_EQ(vcpu.Translate(kVa1).level, Level::k2M);
}

// Covers: TST-40
TEST_F(ShadowAccessTest, AFaultOnAPrefetchedEntryHasTheRightErrorCode) {
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  Map(vcpu, kVa1 + 0x1000, kTables1, EntryTo(601, kGuestPage & ~kU), 1);
  Map(vcpu, kVa1, kTables1, EntryTo(600), 1);
  EXPECT_EQ(Do(vcpu, kVa1, kUserRead), std::nullopt);
  ASSERT_TRUE(vcpu.Translate(kVa1 + 0x1000).present) << "prefetched";
  EXPECT_FALSE(vcpu.Translate(kVa1 + 0x1000).rights.Has(kMayUser));
  EXPECT_EQ(Do(vcpu, kVa1 + 0x1000, kUserRead), kPferrPresent | kPferrUser);
  EXPECT_EQ(Do(vcpu, kVa1 + 0x1000, kUserWrite),
            kPferrPresent | kPferrUser | kPferrWrite);
}

// Covers: TST-40
TEST_F(ShadowAccessTest, WithoutWpAWriteToALargePageSetsDirtyAfterARead) {
  ShadowTestVcpu vcpu(vm_, kWithoutWp);
  Map(vcpu, kVa1, kTables1, EntryTo(kHugePage, kGuestHugePage & ~(kW | kD)), 2);
  EXPECT_EQ(Do(vcpu, kVa1, kRead), std::nullopt);
  EXPECT_EQ(PageDirectoryEntry(kTables1, kVa1) & kD, 0u);
  EXPECT_FALSE(vcpu.Translate(kVa1 + 0x1000).rights.Has(kMayWrite));
  EXPECT_EQ(Do(vcpu, kVa1 + 0x1000, kWrite), std::nullopt);
  EXPECT_EQ(PageDirectoryEntry(kTables1, kVa1) & kD, kD);
}

// Covers: TST-40, ROLE-07
TEST_F(ShadowAccessTest, SmepHoldsForAPageThatASupervisorWroteWithoutWp) {
  ShadowTestVcpu smep(vm_, kSmepWithoutWp);
  ShadowTestVcpu no_smep(vm_, kWithoutWp);
  Map(smep, kVa1, kTables1, EntryTo(600, kGuestPage & ~kW), 1);
  no_smep.LoadCr3(Gfn(kTop));
  EXPECT_EQ(Do(smep, kVa1, kWrite), std::nullopt);
  EXPECT_EQ(Do(no_smep, kVa1, kWrite), std::nullopt);
  // SMEP forbids `smep` an execution that `no_smep` may do, so they share no
  // page.
  EXPECT_TRUE(no_smep.Translate(kVa1).rights.Has(kMayExec));
  EXPECT_FALSE(smep.Translate(kVa1).rights.Has(kMayExec));
  EXPECT_EQ(Do(smep, kVa1, kExec), kPferrPresent | kPferrFetch);
  EXPECT_EQ(Do(no_smep, kVa1, kExec), std::nullopt);
  // In user mode `smep` may execute the page.
  EXPECT_EQ(Do(smep, kVa1, kUserExec), std::nullopt);
  EXPECT_EQ(Do(smep, kVa1, kUserWrite),
            kPferrPresent | kPferrUser | kPferrWrite);
}

// Covers: TST-40, ROLE-01
TEST_F(ShadowAccessTest, AVcpuThatTogglesWpHasPagesOfItsOwn) {
  ShadowTestVcpu wp(vm_, kFourLevelPaging);
  ShadowTestVcpu no_wp(vm_, kWithoutWp);
  Map(wp, kVa1, kTables1, EntryTo(600, kGuestPage & ~kW), 1);
  no_wp.LoadCr3(Gfn(kTop));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Do(no_wp, kVa1, kWrite), std::nullopt);
    EXPECT_EQ(Do(wp, kVa1, kWrite), kPferrPresent | kPferrWrite);
    EXPECT_EQ(Do(wp, kVa1, kRead), std::nullopt);
    EXPECT_FALSE(wp.Translate(kVa1).rights.Has(kMayWrite));
    EXPECT_TRUE(no_wp.Translate(kVa1).rights.Has(kMayWrite));
  }
  EXPECT_EQ(vm_.PagesOf(kTables1 + 3).size(), 2u);
}

// Covers: TST-40
TEST_F(ShadowAccessTest, TwoWaysToATableWithDifferentRightsHaveTheirOwnPages) {
  // Both addresses end in the same page directory and page table. In the tables
  // above, kVa1 is writable and for the supervisor, kVa2 is read-only and for
  // users.
  ShadowTestVcpu vcpu(vm_, kFourLevelPaging);
  Map(vcpu, kVa1, kTables1, EntryTo(600), 1);
  vm_.memory.PutEntry(Gfn(kTop), IndexOf(Gfn(kVa2 >> kPageShift), Level::k512G),
                      EntryTo(kTables2 + 1, kGuestTable));
  vm_.memory.PutEntry(Gfn(kTables2 + 1),
                      IndexOf(Gfn(kVa2 >> kPageShift), Level::k1G),
                      EntryTo(kTables1 + 2, kGuestTable & ~kW));
  vm_.memory.PutEntry(Gfn(kTables1 + 1),
                      IndexOf(Gfn(kVa1 >> kPageShift), Level::k1G),
                      EntryTo(kTables1 + 2, kGuestTable & ~kU));
  EXPECT_EQ(Do(vcpu, kVa1, kWrite), std::nullopt);
  EXPECT_EQ(Do(vcpu, kVa2, kUserRead), std::nullopt);
  EXPECT_EQ(vcpu.Translate(kVa1).rights, kAllRights.Without(kMayUser));
  EXPECT_EQ(vcpu.Translate(kVa2).rights, kAllRights.Without(kMayWrite));
  EXPECT_EQ(vm_.PagesOf(kTables1 + 2).size(), 2u);
  EXPECT_EQ(vm_.PagesOf(kTables1 + 3).size(), 2u);
  EXPECT_EQ(Do(vcpu, kVa1, kUserRead), kPferrPresent | kPferrUser);
  EXPECT_EQ(Do(vcpu, kVa2, kUserWrite),
            kPferrPresent | kPferrUser | kPferrWrite);
  EXPECT_EQ(Do(vcpu, kVa2, kWrite), kPferrPresent | kPferrWrite);
}

}  // namespace
}  // namespace mmu::testing
