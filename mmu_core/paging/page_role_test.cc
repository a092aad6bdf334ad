#include "mmu_core/paging/page_role.h"

#include <cstdint>
#include <functional>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/access_rights.h"

namespace mmu {
namespace {

TEST(PageRoleTest, EachLevelAndAddressSpaceIsARoleOfItsOwn) {
  std::set<uint32_t> words;
  for (int level = 1; level <= 5; ++level) {
    for (const int as_id : {0, 1, 255}) {
      const PageRole role = PageRole::Direct(static_cast<Level>(level), as_id);
      EXPECT_EQ(ToInt(role.level()), level);
      EXPECT_EQ(role.as_id(), as_id);
      EXPECT_TRUE(role.IsDirect());
      EXPECT_TRUE(words.insert(role.word()).second);
      EXPECT_EQ(role.word() >> 24, static_cast<uint32_t>(as_id));
    }
  }
  EXPECT_FALSE(PageRole().IsDirect());
}

TEST(PageRoleTest, AChildDiffersFromItsParentInTheLevelOnly) {
  for (const int as_id : {0, 1}) {
    EXPECT_EQ(PageRole::Direct(Level::k256T, as_id).Child(),
              PageRole::Direct(Level::k512G, as_id));
    EXPECT_EQ(PageRole::Direct(Level::k2M, as_id).Child(),
              PageRole::Direct(Level::k4K, as_id));
  }
}

// Roles in each of which one field has its largest value.
std::vector<PageRole::Fields> OneFieldEach() {
  std::vector<PageRole::Fields> all;
  const auto add = [&all](const std::function<void(PageRole::Fields&)>& set) {
    PageRole::Fields fields;
    set(fields);
    all.push_back(fields);
  };
  add([](auto& f) { f.level = 5; });
  add([](auto& f) { f.has_4_byte_gpte = true; });
  add([](auto& f) { f.quadrant = 3; });
  add([](auto& f) { f.direct = true; });
  add([](auto& f) { f.access = kAllRights; });
  add([](auto& f) { f.invalid = true; });
  add([](auto& f) { f.efer_nx = true; });
  add([](auto& f) { f.cr0_wp = true; });
  add([](auto& f) { f.smap_andnot_wp = true; });
  add([](auto& f) { f.ad_disabled = true; });
  add([](auto& f) { f.guest_mode = true; });
  add([](auto& f) { f.passthrough = true; });
  add([](auto& f) { f.cr4_smep = true; });
  add([](auto& f) { f.as_id = 255; });
  return all;
}

TEST(PageRoleTest, EachFieldHasBitsOfItsOwnAndIsReadBackAlone) {
  uint32_t used = 0;
  for (const PageRole::Fields& fields : OneFieldEach()) {
    const PageRole role = PageRole::Of(fields);
    EXPECT_NE(role.word(), 0u);
    EXPECT_EQ(used & role.word(), 0u);
    used |= role.word();
    EXPECT_EQ(PageRole::Of(role.fields()), role);
    EXPECT_EQ(role.level_number(), fields.level);
    EXPECT_EQ(role.has_4_byte_gpte(), fields.has_4_byte_gpte);
    EXPECT_EQ(role.quadrant(), fields.quadrant);
    EXPECT_EQ(role.IsDirect(), fields.direct);
    EXPECT_EQ(role.access(), fields.access);
    EXPECT_EQ(role.IsInvalid(), fields.invalid);
    EXPECT_EQ(role.efer_nx(), fields.efer_nx);
    EXPECT_EQ(role.cr0_wp(), fields.cr0_wp);
    EXPECT_EQ(role.smap_andnot_wp(), fields.smap_andnot_wp);
    EXPECT_EQ(role.ad_disabled(), fields.ad_disabled);
    EXPECT_EQ(role.guest_mode(), fields.guest_mode);
    EXPECT_EQ(role.IsPassthrough(), fields.passthrough);
    EXPECT_EQ(role.cr4_smep(), fields.cr4_smep);
    EXPECT_EQ(role.as_id(), fields.as_id);
  }
}

// Covers: ROLE-31, ROLE-38
TEST(PageRoleTest, OnlyIndirectPagesBelowTheGuestsRootHaveGuestPtes) {
  struct Row {
    bool direct, passthrough, has_guest_ptes;
  };
  for (const Row& row : {Row{false, false, true}, Row{false, true, false},
                         Row{true, false, false}, Row{true, true, false}}) {
    const PageRole role = PageRole::Of(
        {.level = 4, .direct = row.direct, .passthrough = row.passthrough});
    EXPECT_EQ(role.HasGuestPtes(), row.has_guest_ptes);
    EXPECT_EQ(role.IsPassthrough(), row.passthrough);
  }
}

// Covers: ROLE-10
TEST(PageRoleTest, AnInvalidPageHasARoleThatNoPageInUseHas) {
  for (PageRole::Fields fields : OneFieldEach()) {
    fields.invalid = false;
    const PageRole role = PageRole::Of(fields);
    EXPECT_NE(role.Invalidated(), role);
    EXPECT_TRUE(role.Invalidated().IsInvalid());
    fields.invalid = true;
    EXPECT_EQ(role.Invalidated(), PageRole::Of(fields));
  }
}

// Covers: ROLE-11
TEST(PageRoleTest, AChildHasItsOwnAccessAndKindAndElseItsParentsSettings) {
  PageRole::Fields fields = {.level = 5,
                             .access = kAllRights,
                             .invalid = true,
                             .efer_nx = true,
                             .cr0_wp = true,
                             .ad_disabled = true,
                             .guest_mode = true,
                             .passthrough = true,
                             .cr4_smep = true,
                             .as_id = 1};
  const PageRole parent = PageRole::Of(fields);
  const PageRole indirect = parent.IndirectChild(kMayRead | kMayExec, 3);
  const PageRole direct = parent.DirectChild(kMayRead, 3);

  fields.level = 4;
  fields.invalid = false;
  fields.passthrough = false;
  fields.access = kMayRead | kMayExec;
  EXPECT_EQ(indirect, PageRole::Of(fields));
  EXPECT_TRUE(indirect.HasGuestPtes());
  fields.access = kMayRead;
  fields.direct = true;
  EXPECT_EQ(direct, PageRole::Of(fields));
  EXPECT_FALSE(direct.IndirectChild(kMayRead, 0).IsDirect());
}

// Covers: ROLE-13
TEST(PageRoleTest, TheTwoPagesOfAFourByteGuestsPageTableDifferInTheQuadrant) {
  const PageRole directory = PageRole::Of({.level = 2,
                                           .has_4_byte_gpte = true,
                                           .quadrant = 3,
                                           .access = kAllRights});
  const PageRole even = directory.IndirectChild(kAllRights, 6);
  const PageRole odd = directory.IndirectChild(kAllRights, 7);
  EXPECT_EQ(even.quadrant(), 0);
  EXPECT_EQ(odd.quadrant(), 1);
  EXPECT_NE(even, odd);
  EXPECT_EQ(even, directory.IndirectChild(kAllRights, 508));

  PageRole::Fields eight = directory.fields();
  eight.has_4_byte_gpte = false;
  eight.quadrant = 0;
  EXPECT_EQ(PageRole::Of(eight).IndirectChild(kAllRights, 7).quadrant(), 0);
}

// Counts the roles of tracked pages one by one; the header multiplies.
// Covers: ROLE-40, ROLE-42
TEST(PageRoleTest, TheRolesOfTrackedPagesAtOneGfnFitIntoSixteenBits) {
  uint32_t tracked = 0;
  uint32_t counted = 0;
  for (uint32_t bits = 0; bits < 1u << 20; ++bits) {
    const auto bit = [bits](int n) { return (bits >> n & 1) != 0; };
    const PageRole role =
        PageRole::Of({.level = static_cast<int>(bits & 0xf),
                      .has_4_byte_gpte = bit(4),
                      .quadrant = static_cast<int>(bits >> 5 & 3),
                      .direct = bit(7),
                      .access = AccessRights(bits >> 8 & 15),
                      .invalid = bit(12),
                      .efer_nx = bit(13),
                      .cr0_wp = bit(14),
                      .smap_andnot_wp = bit(15),
                      .ad_disabled = bit(16),
                      .guest_mode = bit(17),
                      .passthrough = bit(18),
                      .cr4_smep = bit(19)});
    if (role.IsInvalid() || role.level_number() < 2 ||
        role.level_number() > 5 || (role.cr0_wp() && role.smap_andnot_wp())) {
      continue;
    }
    if (role.has_4_byte_gpte()) {
      if (role.level() != Level::k2M || role.ad_disabled() ||
          !role.access().Has(kMayRead)) {
        continue;
      }
    } else if (role.quadrant() != 0) {
      continue;
    }
    ++counted;
    if (role.HasGuestPtes()) ++tracked;
  }
  EXPECT_EQ(counted, MaxTrackedPagesPerGfn());
  EXPECT_LT(counted, 1u << 14);
  EXPECT_LT(tracked, 1u << 12);
}

}  // namespace
}  // namespace mmu
