#include "mmu_core/shadow/shadow_page_state.h"

#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/testing/shadow_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::DirectRole;
using ::mmu::testing::IndirectRole;
using ::mmu::testing::PassthroughRole;
using ::mmu::testing::ShadowFixture;

class ShadowPageStateTest : public ::testing::Test, protected ShadowFixture {};
using ShadowPageStateDeathTest = ShadowPageStateTest;

// Covers: SHD-06
TEST_F(ShadowPageStateTest, ADirectPageIsLinear) {
  ShadowPageState& page = Page(0x40000, DirectRole(2, kMayRead | kMayExec));
  for (int i = 0; i < kEntriesPerTable; ++i) {
    const GuestTranslation expected = {
        Gfn(0x40000 + 512 * static_cast<uint64_t>(i)), kMayRead | kMayExec};
    EXPECT_EQ(page.TranslationOf(i), expected);
    page.SetTranslation(i, expected);
  }
}

// Covers: SHD-06
TEST_F(ShadowPageStateTest, AnIndirectPageKnowsWhatEachEntryStandsFor) {
  ShadowPageState& page = Page(3, IndirectRole(1));
  const auto translation = [](int i) {
    return GuestTranslation{Gfn((uint64_t{1} << 52) - 1 - 7 * uint64_t(i)),
                            AccessRights(static_cast<uint32_t>(i) % 16)};
  };
  for (int i = 0; i < kEntriesPerTable; ++i) {
    page.SetTranslation(i, translation(i));
  }
  for (int i = 0; i < kEntriesPerTable; ++i) {
    EXPECT_EQ(page.TranslationOf(i), translation(i));
  }
}

// Covers: ROLE-32
TEST_F(ShadowPageStateTest, EachEntryOfAPassthroughPageStandsForTheGuestsRoot) {
  ShadowPageState& page = Page(77, PassthroughRole());
  for (int i = 0; i < kEntriesPerTable; ++i) {
    EXPECT_EQ(page.TranslationOf(i), (GuestTranslation{Gfn(77), kAllRights}));
  }
}

// Covers: ROLE-32, SHD-06
TEST_F(ShadowPageStateDeathTest, WhatFollowsFromGfnAndRoleCannotBeChanged) {
  ShadowPageState& top = Page(77, PassthroughRole());
  EXPECT_DEATH(top.SetTranslation(1, {Gfn(78), kAllRights}), "TranslationOf");
  ShadowPageState& direct = Page(512, DirectRole(1));
  EXPECT_DEATH(direct.SetTranslation(1, {Gfn(512), kAllRights}),
               "TranslationOf");
  EXPECT_DEATH(direct.SetTranslation(1, {Gfn(513), kMayRead}), "TranslationOf");
}

TEST_F(ShadowPageStateTest, AnEntryLeadsToItsPageAndATableToItsOwn) {
  ShadowPageState& parent = Page(1, IndirectRole(2));
  ShadowPageState& child = Page(2, IndirectRole(1));
  Link(parent, 511, child);
  EXPECT_EQ(&PageHolding(parent.EntryAt(511)), &parent);
  EXPECT_EQ(IndexInTable(parent.EntryAt(511)), 511);
  EXPECT_EQ(&ChildAt(parent.EntryAt(511).Load()), &child);
}

// Covers: ROLE-10
TEST_F(ShadowPageStateTest, AnInvalidPagesRoleIsEqualToNoneInUse) {
  ShadowPageState& root = Page(1, IndirectRole(4));
  pages_.zap().GetRoot(lock_, root);
  EXPECT_EQ(root.role(), IndirectRole(4));
  Zap(root);
  EXPECT_NE(root.role(), IndirectRole(4));
  EXPECT_TRUE(root.role().IsInvalid());
  EXPECT_NE(&Page(1, IndirectRole(4)), &root);
  PutRoot(root);
}

}  // namespace
}  // namespace mmu
