#include "tests/model/guest_reference.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/guest_format.h"
#include "tests/model/guest_layout.h"
#include "tests/model/model_config.h"

namespace mmu::testing {
namespace {

using ::testing::ElementsAre;

constexpr uint64_t kTable = kGuestBase + 1;
constexpr uint64_t kOtherTable = kGuestBase + 2;
constexpr Place kPlace = {0, 0, 0};
constexpr Place kNextPlace = {0, 0, 1};

ModelLink LinkTo(uint64_t table) {
  return {ModelLink::Kind::kTable, table, kFullRights};
}
ModelLeaf LeafTo(uint64_t page) { return {true, page, kFullRights}; }

class GuestReferenceTest : public ::testing::Test {
 protected:
  // The pages that the vCPU may find at the place; 0: none, it faults.
  std::vector<uint64_t> PagesFor(int vcpu, const Place& place) const {
    std::vector<uint64_t> pages;
    for (const ModelTranslation& one : reference_.CandidatesOf(vcpu, place)) {
      pages.push_back(one.present ? one.page : 0);
    }
    return pages;
  }

  const GuestFormat format_{ModelConfig()};
  GuestReference reference_{format_, /*vcpus=*/2};
};

TEST_F(GuestReferenceTest, WithoutAnInvalidationTheOldPageMayBeUsed) {
  reference_.SetLink(0, 0, LinkTo(kTable));
  reference_.SetLeaf(kTable, 0, LeafTo(10));
  EXPECT_THAT(PagesFor(0, kPlace), ElementsAre(10));
  reference_.SetLeaf(kTable, 0, LeafTo(11));
  EXPECT_THAT(PagesFor(0, kPlace), ElementsAre(11, 10));
  reference_.SetLeaf(kTable, 0, {});
  EXPECT_THAT(PagesFor(0, kPlace), ElementsAre(0, 10, 11));
  EXPECT_THAT(PagesFor(0, kNextPlace), ElementsAre(0));
}

TEST_F(GuestReferenceTest, AnInvalidationConcernsOneVcpuAndOnePlace) {
  reference_.SetLink(0, 0, LinkTo(kTable));
  for (const int index : {0, 1}) {
    reference_.SetLeaf(kTable, index, LeafTo(10));
    reference_.SetLeaf(kTable, index, LeafTo(11));
  }
  reference_.Invalidated(0, kPlace);
  EXPECT_THAT(PagesFor(0, kPlace), ElementsAre(11));
  EXPECT_THAT(PagesFor(0, kNextPlace), ElementsAre(11, 10));
  EXPECT_THAT(PagesFor(1, kPlace), ElementsAre(11, 10));
  reference_.Invalidated(1, /*space=*/0);
  EXPECT_THAT(PagesFor(1, kPlace), ElementsAre(11));
  EXPECT_THAT(PagesFor(1, kNextPlace), ElementsAre(11));
}

// The vCPU may have cached the old entry of level 2, and read the new entry of
// level 1 through it.
TEST_F(GuestReferenceTest, AnOldLinkCombinesWithOldAndNewLeafs) {
  reference_.InitLeaf(kTable, 0, LeafTo(10));
  reference_.InitLeaf(kOtherTable, 0, LeafTo(20));
  reference_.SetLink(0, 0, LinkTo(kTable));
  reference_.SetLink(0, 0, LinkTo(kOtherTable));
  reference_.SetLeaf(kTable, 0, LeafTo(11));
  EXPECT_THAT(PagesFor(0, kPlace), ElementsAre(20, 11, 10));
}

TEST_F(GuestReferenceTest, ATableThatTwoSpacesShareChangesInBoth) {
  reference_.InitLeaf(kTable, 0, LeafTo(10));
  reference_.SetLink(0, 0, LinkTo(kTable));
  reference_.SetLink(2, 3, LinkTo(kTable));
  reference_.SetLeaf(kTable, 0, LeafTo(11));
  reference_.Invalidated(0, /*space=*/0);
  EXPECT_THAT(PagesFor(0, kPlace), ElementsAre(11));
  EXPECT_THAT(PagesFor(0, Place{2, 3, 0}), ElementsAre(11, 10));
}

TEST_F(GuestReferenceTest, ALinkTakesRightsAway) {
  ModelLink link = LinkTo(kTable);
  link.rights.write = false;
  reference_.SetLink(0, 0, link);
  reference_.SetLeaf(kTable, 0, LeafTo(10));
  EXPECT_FALSE(reference_.Current(kPlace).rights.write);
  EXPECT_TRUE(reference_.Current(kPlace).rights.read);
}

TEST_F(GuestReferenceTest, ALargePageCoversItsRegion) {
  reference_.SetLink(
      0, 0, {ModelLink::Kind::kLarge, kGuestBase + kLargeData, kFullRights});
  EXPECT_THAT(PagesFor(0, kNextPlace),
              ElementsAre(kGuestBase + kLargeData + 1));
  EXPECT_THAT(PagesFor(0, Place{0, 0, kPagesPerRegion - 1}),
              ElementsAre(kGuestBase + kLargeData + 511));
}

TEST_F(GuestReferenceTest, RemembersAFewChangesOnly) {
  reference_.SetLink(0, 0, LinkTo(kTable));
  uint64_t page = 10;
  reference_.SetLeaf(kTable, 0, LeafTo(page));
  while (reference_.HasRoom(0, kPlace)) {
    reference_.SetLeaf(kTable, 0, LeafTo(++page));
  }
  EXPECT_EQ(page, 13u);
  reference_.Invalidated(0, kPlace);
  EXPECT_TRUE(reference_.HasRoom(0, kPlace));
}

}  // namespace
}  // namespace mmu::testing
