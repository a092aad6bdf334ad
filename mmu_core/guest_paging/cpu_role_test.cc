#include "mmu_core/guest_paging/cpu_role.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"

namespace mmu {
namespace {

constexpr uint64_t kCr0Ts = uint64_t{1} << 3;

constexpr GuestPagingState kUnpaged = {};
constexpr GuestPagingState kTwoLevel = {.cr0 = kCr0Pg};
constexpr GuestPagingState kPae = {.cr0 = kCr0Pg, .cr4 = kCr4Pae};
constexpr GuestPagingState kLong = {
    .cr0 = kCr0Pg, .cr4 = kCr4Pae, .efer = kEferLma};
constexpr GuestPagingState kLong57 = {
    .cr0 = kCr0Pg, .cr4 = kCr4Pae | kCr4La57, .efer = kEferLma};

GuestPagingState With(GuestPagingState state, uint64_t cr0, uint64_t cr4 = 0,
                      uint64_t efer = 0) {
  state.cr0 |= cr0;
  state.cr4 |= cr4;
  state.efer |= efer;
  return state;
}

// Covers: ROLE-02
TEST(CpuRoleTest, OnlyWhatPagingDependsOnChangesTheRole) {
  const CpuRole role = LegacyCpuRole(kLong);
  EXPECT_EQ(LegacyCpuRole(With(kLong, kCr0Ts)), role);
  EXPECT_EQ(LegacyCpuRole(With(kLong, kCr0Ts)).word(), role.word());
  for (const GuestPagingState& other :
       {With(kLong, kCr0Wp), With(kLong, 0, kCr4Smep), With(kLong, 0, kCr4Smap),
        With(kLong, 0, kCr4Pke), With(kLong, 0, kCr4Pse), kLong57,
        With(kLong, 0, 0, kEferNx), kPae, kTwoLevel, kUnpaged}) {
    EXPECT_NE(LegacyCpuRole(other), role);
    EXPECT_NE(LegacyCpuRole(other).word(), role.word());
  }
  GuestPagingState smm = kLong;
  smm.as_id = 1;
  EXPECT_NE(LegacyCpuRole(smm), role);
  GuestPagingState l2 = kLong;
  l2.guest_mode = true;
  EXPECT_NE(LegacyCpuRole(l2), role);
}

// Covers: ROLE-02
TEST(CpuRoleTest, TheDefaultRoleIsThatOfNoVcpu) {
  EXPECT_EQ(CpuRole().word(), 0u);
  EXPECT_FALSE(CpuRole().IsValid());
  for (const CpuRole role : {LegacyCpuRole(kUnpaged), LegacyCpuRole(kLong),
                             EptCpuRole({}, 0), NptCpuRole(kPae)}) {
    EXPECT_TRUE(role.IsValid());
    EXPECT_NE(role, CpuRole());
  }
}

// Covers: ROLE-03
TEST(CpuRoleTest, TheGuestsLevelsFollowFromItsPagingMode) {
  struct Row {
    GuestPagingState state;
    int level;
    bool has_4_byte_gpte;
  };
  // LA57 and EFER.LMA are ignored in modes in which they have no meaning.
  const GuestPagingState pae_la57 = With(kPae, 0, kCr4La57);
  for (const Row& row : {Row{kUnpaged, 0, false}, Row{kTwoLevel, 2, true},
                         Row{kPae, 3, false}, Row{kLong, 4, false},
                         Row{kLong57, 5, false}, Row{pae_la57, 3, false}}) {
    const CpuRole role = LegacyCpuRole(row.state);
    EXPECT_EQ(role.guest_level(), row.level);
    EXPECT_EQ(role.base().has_4_byte_gpte(), row.has_4_byte_gpte);
    EXPECT_EQ(role.base().IsDirect(), row.level == 0);
    EXPECT_EQ(role.cr4_la57(), row.level == 5);
  }
  EXPECT_FALSE(LegacyCpuRole(With(kPae, 0, kCr4Pke)).cr4_pke());
  EXPECT_TRUE(LegacyCpuRole(With(kLong, 0, kCr4Pke)).cr4_pke());
}

// Covers: ROLE-04
TEST(CpuRoleTest, AShadowRootHasThreeLevelsOrMoreAndNx) {
  struct Row {
    GuestPagingState state;
    int level;
  };
  for (const Row& row : {Row{kUnpaged, 3}, Row{kTwoLevel, 3}, Row{kPae, 3},
                         Row{kLong, 4}, Row{kLong57, 5}}) {
    const CpuRole role = LegacyCpuRole(row.state);
    const PageRole root = ShadowRootRole(role);
    PageRole::Fields expected = role.base().fields();
    expected.level = row.level;
    expected.efer_nx = true;
    EXPECT_EQ(root, PageRole::Of(expected));
    EXPECT_EQ(HasPaeRoots(role, root), row.level == 3);
    EXPECT_EQ(ScratchTables(role, root), 0);
  }
}

// Covers: ROLE-04
TEST(CpuRoleTest, ANestedRootIsAsDeepAsL1sEptOrTheHostsNpt) {
  for (const Level level : {Level::k512G, Level::k256T}) {
    const CpuRole role = EptCpuRole({.root_level = level}, 0);
    EXPECT_EQ(ShadowEptRootRole(role).level(), level);
    EXPECT_FALSE(HasPaeRoots(role, ShadowEptRootRole(role)));
  }
  EXPECT_EQ(ShadowNptRootRole(NptCpuRole(kLong), Level::k512G).level(),
            Level::k512G);
  EXPECT_EQ(ShadowNptRootRole(NptCpuRole(kLong), Level::k256T).level(),
            Level::k256T);
}

// Covers: ROLE-05
TEST(CpuRoleTest, ATdpRootKnowsNothingOfTheGuestsRegisters) {
  const PageRole role = TdpRootRole(Level::k512G, AdBits::kEnabled, kLong);
  EXPECT_EQ(role, PageRole::Of({.level = 4,
                                .direct = true,
                                .access = kAllRights,
                                .efer_nx = true,
                                .cr0_wp = true}));
  for (const GuestPagingState& other :
       {With(kLong, kCr0Wp), With(kLong, 0, kCr4Smap), kUnpaged, kTwoLevel}) {
    EXPECT_EQ(TdpRootRole(Level::k512G, AdBits::kEnabled, other), role);
  }
  EXPECT_EQ(role, PageRole::Direct(Level::k512G, 0));

  EXPECT_TRUE(
      TdpRootRole(Level::k512G, AdBits::kDisabled, kLong).ad_disabled());
  GuestPagingState l2_in_smm = kLong;
  l2_in_smm.guest_mode = true;
  l2_in_smm.as_id = 1;
  const PageRole other = TdpRootRole(Level::k256T, AdBits::kEnabled, l2_in_smm);
  EXPECT_TRUE(other.guest_mode());
  EXPECT_EQ(other.as_id(), 1);
  EXPECT_EQ(other.level(), Level::k256T);
  EXPECT_FALSE(HasPaeRoots(LegacyCpuRole(kTwoLevel), role));
}

// Covers: ROLE-06
TEST(CpuRoleTest, WriteProtectAndItsAbsenceUnderSmapHaveThreeCombinations) {
  struct Row {
    uint64_t cr0, cr4;
    bool cr0_wp, smap_andnot_wp;
  };
  for (const Row& row :
       {Row{0, 0, false, false}, Row{0, kCr4Smap, false, true},
        Row{kCr0Wp, 0, true, false}, Row{kCr0Wp, kCr4Smap, true, false}}) {
    const PageRole role = LegacyCpuRole(With(kLong, row.cr0, row.cr4)).base();
    EXPECT_EQ(role.cr0_wp(), row.cr0_wp);
    EXPECT_EQ(role.smap_andnot_wp(), row.smap_andnot_wp);
  }
}

TEST(CpuRoleTest, AShadowEptRootSaysWhetherL1UsesAccessedAndDirtyBits) {
  const PageRole without = ShadowEptRootRole(EptCpuRole({}, 0));
  EXPECT_TRUE(without.ad_disabled());
  EXPECT_TRUE(without.guest_mode());
  EXPECT_FALSE(without.IsDirect());
  EXPECT_FALSE(without.has_4_byte_gpte());
  const CpuRole role = EptCpuRole(
      {.ad_bits = true, .exec_only = true, .mode_based_exec = true}, 0);
  EXPECT_FALSE(ShadowEptRootRole(role).ad_disabled());
  EXPECT_TRUE(role.base().cr4_smep());
  EXPECT_TRUE(role.exec_only());
}

TEST(CpuRoleTest, L1sNptIgnoresWhatProtectsSupervisorPages) {
  const CpuRole role =
      NptCpuRole(With(kLong, kCr0Wp, kCr4Smep | kCr4Smap | kCr4Pke, kEferNx));
  EXPECT_EQ(role, NptCpuRole(With(kLong, 0, 0, kEferNx)));
  EXPECT_TRUE(role.base().guest_mode());
  EXPECT_TRUE(role.base().efer_nx());
}

TEST(CpuRoleTest, FourLevelsOfL1UnderAFiveLevelHostGetAPassthroughPage) {
  const CpuRole role = NptCpuRole(kLong);
  const PageRole root = ShadowNptRootRole(role, Level::k256T);
  EXPECT_EQ(root.level(), Level::k256T);
  EXPECT_TRUE(root.IsPassthrough());
  EXPECT_FALSE(root.HasGuestPtes());
  const PageRole child = root.IndirectChild(root.access(), 0);
  EXPECT_EQ(child, ShadowNptRootRole(role, Level::k512G));
  EXPECT_TRUE(child.HasGuestPtes());

  EXPECT_FALSE(
      ShadowNptRootRole(NptCpuRole(kLong57), Level::k256T).IsPassthrough());
}

TEST(CpuRoleTest, TwoOrThreeLevelsOfL1GetScratchTablesAbovePaeRoots) {
  for (const GuestPagingState& l1 : {kTwoLevel, kPae}) {
    const CpuRole role = NptCpuRole(l1);
    for (const Level host : {Level::k512G, Level::k256T}) {
      const PageRole root = ShadowNptRootRole(role, host);
      EXPECT_EQ(root.level(), host);
      EXPECT_FALSE(root.IsPassthrough());
      EXPECT_TRUE(HasPaeRoots(role, root));
      EXPECT_EQ(ScratchTables(role, root), ToInt(host) - 3);
    }
  }
}

}  // namespace
}  // namespace mmu
