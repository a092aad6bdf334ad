// Walks of the tables that L1 built for L2: EPT and NPT.

#include <cstdint>

#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/testing/guest_memory_test_util.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kR = guest_entry::kEptRead;
constexpr uint64_t kW = guest_entry::kEptWrite;
constexpr uint64_t kX = guest_entry::kEptExec;
constexpr uint64_t kA = guest_entry::kEptAccessed;
constexpr uint64_t kD = guest_entry::kEptDirty;
constexpr uint64_t kXu = guest_entry::kEptUserExec;
constexpr uint64_t kPs = guest_entry::kPageSize;
constexpr uint64_t kRwx = kR | kW | kX;
constexpr uint64_t kWriteBack = 6 << guest_entry::kEptMemoryTypeShift;
constexpr uint64_t kNptP = guest_entry::kPresent;
constexpr uint64_t kNptW = guest_entry::kWritable;
constexpr uint64_t kNptU = guest_entry::kUser;
constexpr uint64_t kNptG = guest_entry::kGlobal;
constexpr uint64_t kNptNx = guest_entry::kNx;
constexpr uint64_t kNgpa = 0x12345678;

constexpr GuestPageAccess kReadAccess = {.kind = AccessKind::kRead};
constexpr GuestPageAccess kWriteAccess = {.kind = AccessKind::kWrite};
constexpr GuestPageAccess kFetch = {.kind = AccessKind::kExec};
constexpr GuestPageAccess kUserFetch = {.kind = AccessKind::kExec,
                                        .privilege = Privilege::kUser};

class NestedWalkTest : public ::testing::Test {
 protected:
  // Makes tables from 0x1000 on, the top table first. The entry of `leaf_level`
  // is `leaf`, those above have the bits `upper`. Returns the address of the
  // leaf entry.
  uint64_t Map(int top, int leaf_level, uint64_t upper, uint64_t leaf) {
    memory_.Clear();
    root_.table = Gfn(1);
    uint64_t table = 0x1000;
    for (int level = top;; --level, table += 0x1000) {
      const uint64_t entry = table + 8 * static_cast<uint64_t>(IndexOf(
                                             ToGfn(Gpa(kNgpa)), Level(level)));
      memory_.Put(entry, level == leaf_level ? leaf : (table + 0x1000) | upper);
      if (level == leaf_level) return entry;
    }
  }
  uint64_t MapEpt(uint64_t leaf) {
    return Map(4, 1, kRwx, leaf | kWriteBack | 0x345000);
  }

  GuestWalkResult WalkEpt(const EptOptions& options,
                          const GuestPageAccess& access = kReadAccess) {
    return GuestWalker(GuestTables::kEpt, EptCpuRole(options, 0), {})
        .Walk(memory_.words(), root_, kNgpa, access);
  }
  GuestWalkResult WalkNpt(const GuestPagingState& l1,
                          const GuestPageAccess& access = kReadAccess) {
    return GuestWalker(GuestTables::kNpt, NptCpuRole(l1), {})
        .Walk(memory_.words(), root_, kNgpa, access);
  }

  GuestMemory memory_;
  GuestRoot root_;
};

GuestFault Violation(uint64_t qualification) {
  return {.kind = GuestFault::Kind::kEptViolation, .code = qualification};
}
GuestFault Npf(uint64_t code) {
  return {.kind = GuestFault::Kind::kNestedPageFault, .code = code};
}
constexpr GuestFault kMisconfiguration = {
    .kind = GuestFault::Kind::kEptMisconfiguration};

constexpr GuestPagingState kFourLevelL1 = {
    .cr0 = kCr0Pg, .cr4 = kCr4Pae, .efer = kEferLma | kEferNx};

TEST_F(NestedWalkTest, L1sEptIsWalkedInFourOrFiveLevels) {
  for (const int top : {4, 5}) {
    Map(top, 1, kRwx, kRwx | kWriteBack | 0x345000);
    const GuestWalkResult result =
        WalkEpt({.root_level = static_cast<Level>(top)});
    ASSERT_TRUE(result.translated());
    EXPECT_EQ(result.gfn, Gfn(0x345));
    EXPECT_EQ(result.top_level, top);
    EXPECT_EQ(result.access, kAllRights) << "no Dirty bits to wait for";
  }
}

TEST_F(NestedWalkTest, LargePagesOfL1sEptYieldTheFrameOfTheVeryAddress) {
  Map(4, 2, kRwx, kRwx | kWriteBack | kPs | 0x40a00000);
  EXPECT_EQ(WalkEpt({}).gfn, Gfn(0x40a00 + 0x145));
  Map(4, 3, kRwx, kRwx | kWriteBack | kPs | 0x40000000);
  EXPECT_EQ(WalkEpt({}).gfn, Gfn(0x40000 + 0x12345));
  EXPECT_EQ(WalkEpt({}).leaf_level(), Level::k1G);
}

TEST_F(NestedWalkTest, AnAddressWiderThanL1sTablesIsAViolation) {
  MapEpt(kRwx);
  const GuestWalker walker(GuestTables::kEpt, EptCpuRole({}, 0), {});
  EXPECT_EQ(
      walker
          .Walk(memory_.words(), root_, kNgpa | uint64_t{1} << 48, kReadAccess)
          .fault,
      Violation(kEptViolationRead));
}

// Covers: SHD-49
TEST_F(NestedWalkTest, AViolationSaysWhatWasTriedAndWhatIsGranted) {
  MapEpt(kR);
  EXPECT_TRUE(WalkEpt({}).translated());
  EXPECT_EQ(WalkEpt({}, kWriteAccess).fault,
            Violation(kEptViolationWrite | kEptViolationReadable));
  EXPECT_EQ(WalkEpt({}, kFetch).fault,
            Violation(kEptViolationFetch | kEptViolationReadable));
  MapEpt(0);
  EXPECT_EQ(WalkEpt({}, kWriteAccess).fault, Violation(kEptViolationWrite))
      << "nothing is granted by an entry that is not present";
  Map(4, 1, kR | kX, kRwx | kWriteBack | 0x345000);
  EXPECT_EQ(WalkEpt({}, kWriteAccess).fault,
            Violation(kEptViolationWrite | kEptViolationReadable |
                      kEptViolationExecutable));
}

// Covers: SHD-49
TEST_F(NestedWalkTest, ExecuteOnlyPagesCanBeFetchedAndNotRead) {
  MapEpt(kX);
  EXPECT_EQ(WalkEpt({}, kFetch).fault, kMisconfiguration);
  const EptOptions options = {.exec_only = true};
  const GuestWalkResult result = WalkEpt(options, kFetch);
  ASSERT_TRUE(result.translated());
  EXPECT_EQ(result.access, kMayExec | kMayUser);
  EXPECT_EQ(WalkEpt(options).fault,
            Violation(kEptViolationRead | kEptViolationExecutable));
}

// Covers: SHD-49
TEST_F(NestedWalkTest, ModeBasedExecuteTellsUsersFromSupervisors) {
  const EptOptions options = {.mode_based_exec = true};
  Map(4, 1, kRwx | kXu, kR | kXu | kWriteBack | 0x345000);
  EXPECT_TRUE(WalkEpt(options, kUserFetch).translated());
  EXPECT_EQ(WalkEpt(options, kFetch).fault,
            Violation(kEptViolationFetch | kEptViolationReadable |
                      kEptViolationUserExecutable));
  EXPECT_FALSE(WalkEpt({}, kUserFetch).translated()) << "ignored without";
  Map(4, 1, kRwx | kXu, kR | kX | kWriteBack | 0x345000);
  EXPECT_FALSE(WalkEpt(options, kUserFetch).translated());
  EXPECT_TRUE(WalkEpt(options, kFetch).translated());
  EXPECT_TRUE(WalkEpt({}, kUserFetch).translated());
  // Only XU makes this entry present, and the entry does not allow reads.
  Map(4, 1, kRwx | kXu, kXu | kWriteBack | 0x345000);
  EXPECT_EQ(WalkEpt(options, kUserFetch).fault, kMisconfiguration);
  EXPECT_EQ(WalkEpt({}, kUserFetch).fault, Violation(kEptViolationFetch));
}

TEST_F(NestedWalkTest, EntriesThatCannotBeAreMisconfigurations) {
  for (uint64_t rwx = 0; rwx < 8; ++rwx) {
    MapEpt(rwx);
    const bool wrong = rwx == kW || rwx == (kW | kX) || rwx == kX;
    EXPECT_EQ(WalkEpt({}).fault == kMisconfiguration, wrong) << rwx;
  }
  for (uint64_t type = 0; type < 8; ++type) {
    Map(4, 1, kRwx, kRwx | type << 3 | 0x345000);
    const bool wrong = type == 2 || type == 3 || type == 7;
    EXPECT_EQ(WalkEpt({}).translated(), !wrong) << type;
  }
  struct Row {
    int level;
    uint64_t leaf;
    uint64_t reserved;
  };
  const auto bits = guest_entry::Bits;
  for (const Row& row :
       {Row{1, 0, bits(46, 51)}, Row{2, 0, bits(46, 51) | bits(3, 6)},
        Row{2, kPs, bits(46, 51) | bits(12, 20)},
        Row{3, kPs, bits(46, 51) | bits(12, 29)},
        Row{4, 0, bits(46, 51) | bits(3, 7)}}) {
    for (int bit = 0; bit < 64; ++bit) {
      const uint64_t tried = uint64_t{1} << bit;
      if ((row.reserved & tried) == 0) continue;
      Map(4, row.level, kRwx, kRwx | row.leaf | tried);
      EXPECT_EQ(WalkEpt({}).fault, kMisconfiguration)
          << "level " << row.level << " bit " << bit;
    }
  }
}

// Covers: SHD-47
TEST_F(NestedWalkTest, EptWithoutAccessedAndDirtyBitsIsNeverWritten) {
  uint64_t leaf = MapEpt(kRwx);
  EXPECT_EQ(WalkEpt({}, kWriteAccess).access, kAllRights);
  EXPECT_EQ(memory_.Get(leaf) & (kA | kD), 0u);

  const EptOptions options = {.ad_bits = true};
  EXPECT_EQ(WalkEpt(options).access, kAllRights.Without(kMayWrite));
  EXPECT_EQ(memory_.Get(leaf) & (kA | kD), kA);
  EXPECT_EQ(WalkEpt(options, kWriteAccess).access, kAllRights);
  EXPECT_EQ(memory_.Get(leaf) & (kA | kD), kA | kD);
}

TEST_F(NestedWalkTest, WithAccessedAndDirtyBitsL2sTablesAreWrittenTo) {
  constexpr GuestPageAccess kTable = {.target = NestedTarget::kGuestTable};
  const uint64_t leaf = MapEpt(kR);
  EXPECT_TRUE(WalkEpt({}, kTable).translated());
  EXPECT_EQ(WalkEpt({.ad_bits = true}, kTable).fault,
            Violation(kEptViolationRead | kEptViolationWrite |
                      kEptViolationReadable));
  memory_.Put(leaf, kR | kW | kWriteBack | 0x345000);
  EXPECT_TRUE(WalkEpt({.ad_bits = true}, kTable).translated());
  EXPECT_EQ(memory_.Get(leaf) & (kA | kD), kA | kD);
}

// Covers: SHD-49
TEST_F(NestedWalkTest, EveryAccessIsAUserAccessToL1sNpt) {
  Map(4, 1, kNptP | kNptW | kNptU, kNptP | kNptW | 0x345000);
  EXPECT_EQ(WalkNpt(kFourLevelL1).fault,
            Npf(kPferrPresent | kPferrUser | kPferrGuestFinal));
  const uint64_t leaf =
      Map(4, 1, kNptP | kNptW | kNptU, kNptP | kNptU | 0x345000);
  EXPECT_TRUE(WalkNpt(kFourLevelL1).translated());
  EXPECT_EQ(WalkNpt(kFourLevelL1, kWriteAccess).fault,
            Npf(kPferrPresent | kPferrWrite | kPferrUser | kPferrGuestFinal));
  EXPECT_EQ(WalkNpt(kFourLevelL1, {.target = NestedTarget::kGuestTable}).fault,
            Npf(kPferrPresent | kPferrWrite | kPferrUser | kPferrGuestTable))
      << "a table of L2 may have to be written";
  memory_.Put(leaf, kNptP | kNptU | kNptNx | 0x345000);
  EXPECT_EQ(WalkNpt(kFourLevelL1, kFetch).fault,
            Npf(kPferrPresent | kPferrUser | kPferrFetch | kPferrGuestFinal));
  memory_.Put(leaf, 0);
  EXPECT_EQ(WalkNpt(kFourLevelL1).fault, Npf(kPferrUser | kPferrGuestFinal));

  // Bit 8 is reserved at the top, unlike in Intel's tables.
  Map(4, 4, 0, kNptP | kNptU | kNptG | 0x2000);
  EXPECT_EQ(WalkNpt(kFourLevelL1).fault, Npf(kPferrPresent | kPferrReserved |
                                             kPferrUser | kPferrGuestFinal));
}

TEST_F(NestedWalkTest, L1sNptMayHaveTheFormatOf32BitPaging) {
  constexpr uint64_t kAll = kNptP | kNptW | kNptU;
  memory_.PutEntry(0x1000, kNgpa >> 22, 0x2000 | kAll, WordSize::k4);
  memory_.PutEntry(0x2000, kNgpa >> 12 & 1023, 0x345000 | kAll, WordSize::k4);
  root_.table = Gfn(1);
  const GuestPagingState two_level = {.cr0 = kCr0Pg};
  EXPECT_EQ(WalkNpt(two_level).gfn, Gfn(0x345));
  const GuestWalker walker(GuestTables::kNpt, NptCpuRole(two_level), {});
  EXPECT_EQ(
      walker
          .Walk(memory_.words(), root_, kNgpa | uint64_t{1} << 32, kReadAccess)
          .fault,
      Npf(kPferrUser | kPferrGuestFinal));

  const GuestPagingState pae = {.cr0 = kCr0Pg, .cr4 = kCr4Pae};
  memory_.Clear();
  memory_.PutEntry(0x2000, kNgpa >> 21 & 511, 0x3000 | kAll);
  memory_.PutEntry(0x3000, kNgpa >> 12 & 511, 0x346000 | kAll);
  root_.pdptes[0] = 0x2000 | kNptP;
  EXPECT_EQ(WalkNpt(pae).gfn, Gfn(0x346));
  // Loading nCR3 does not check the PDPTEs, so the walk finds the reserved bit.
  root_.pdptes[0] = 0x2000 | kNptP | kNptW;
  EXPECT_EQ(WalkNpt(pae).fault, Npf(kPferrPresent | kPferrReserved |
                                    kPferrUser | kPferrGuestFinal));
}

}  // namespace
}  // namespace mmu::testing
