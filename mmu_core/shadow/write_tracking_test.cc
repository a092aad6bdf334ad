#include "mmu_core/shadow/write_tracking.h"

#include <cstdint>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/lpage_info.h"
#include "mmu_core/testing/shadow_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::DirectRole;
using ::mmu::testing::IndirectRole;
using ::mmu::testing::NestedRole;
using ::mmu::testing::PassthroughRole;
using ::mmu::testing::ShadowFixture;
using ::testing::ElementsAre;

class WriteTrackingTest : public ::testing::Test, protected ShadowFixture {
 protected:
  uint16_t Trackers(uint64_t gfn) { return Rmaps(gfn).WriteTrackers(Gfn(gfn)); }
  bool HugeDisallowed(uint64_t gfn, Level level) {
    return vm_.SlotOf(0, Gfn(gfn))->lpage_info->Disallowed(Gfn(gfn), level);
  }
  bool Writable(ShadowPageState& page, int index) {
    return page.EntryAt(index).Load().IsWritable();
  }
};

// Covers: SHD-08
TEST_F(WriteTrackingTest, AnUpperPageTracksItsGfnAndNothingMapsItWritable) {
  ShadowPageState& data = Page(1, IndirectRole(1));
  ShadowPageState& alias = Page(2, IndirectRole(1));
  Map(data, 0, 600);
  Map(alias, 0, 600);
  Map(data, 1, 601);
  const uint64_t flushes = Flushes();
  vm_.protected_gfns.clear();
  ASSERT_FALSE(HugeDisallowed(600, Level::k2M));
  const LpageInfo& lpage_info = *vm_.SlotOf(0, Gfn(600))->lpage_info;
  const uint32_t in_1g = lpage_info.Count(Gfn(600), Level::k1G);

  ShadowPageState& page = Page(600, IndirectRole(2));
  EXPECT_EQ(Trackers(600), 1);
  EXPECT_FALSE(Writable(data, 0));
  EXPECT_FALSE(Writable(alias, 0));
  EXPECT_FALSE(SpteFormat::Ept().IsMmuWritable(data.EntryAt(0).Load()))
      << "a fast fault must not give W back";
  EXPECT_TRUE(Writable(data, 1)) << "another gfn";
  EXPECT_THAT(vm_.protected_gfns, ElementsAre(Gfn(600)));
  EXPECT_EQ(Flushes(), flushes + 1);
  EXPECT_TRUE(HugeDisallowed(600, Level::k2M));
  EXPECT_EQ(lpage_info.Count(Gfn(600), Level::k1G), in_1g + 1);
  EXPECT_TRUE(pages_.tracking().AnyIndirectPages());

  // A page with another role is another tracker, and needs no flush.
  ShadowPageState& other = Page(600, IndirectRole(3));
  EXPECT_EQ(Trackers(600), 2);
  EXPECT_EQ(Flushes(), flushes + 1);
  Zap(other);
  EXPECT_EQ(Trackers(600), 1);
  EXPECT_TRUE(HugeDisallowed(600, Level::k2M));
  Zap(page);
  EXPECT_EQ(Trackers(600), 0);
  EXPECT_FALSE(HugeDisallowed(600, Level::k2M));
  EXPECT_EQ(lpage_info.Count(Gfn(600), Level::k1G), in_1g);
}

// Covers: SHD-08
TEST_F(WriteTrackingTest, APageTableWriteProtectsItsGfnWithoutTrackingIt) {
  ShadowPageState& data = Page(1, IndirectRole(1));
  Map(data, 0, 600);
  const uint64_t flushes = Flushes();
  ShadowPageState& page = Page(600, IndirectRole(1));
  EXPECT_EQ(Trackers(600), 0);
  EXPECT_FALSE(Writable(data, 0));
  EXPECT_FALSE(SpteFormat::Ept().IsMmuWritable(data.EntryAt(0).Load()))
      << "a fast fault would give W back";
  EXPECT_TRUE(HugeDisallowed(600, Level::k2M));
  EXPECT_EQ(Flushes(), flushes + 1);
  Zap(page);
  EXPECT_FALSE(HugeDisallowed(600, Level::k2M));
}

// Covers: SHD-08
TEST_F(WriteTrackingTest, ChangesOfTheOtherMmusAreFlushedToo) {
  vm_.other_mmus_change = true;
  const uint64_t flushes = Flushes();
  Page(600, NestedRole(1));
  EXPECT_EQ(Flushes(), flushes + 1);
  Page(601, DirectRole(1));
  EXPECT_EQ(Flushes(), flushes + 1);
}

TEST_F(WriteTrackingTest, AHugePageThatHoldsTheTableIsProtectedAsAWhole) {
  ShadowPageState& data = Page(0, DirectRole(2));
  ShadowPageState& large = Page(0, DirectRole(3));
  Map(data, 1, 512);
  Map(large, 0, 0);
  Page(600, IndirectRole(2));
  EXPECT_FALSE(Writable(data, 1));
  EXPECT_FALSE(Writable(large, 0));
  EXPECT_TRUE(HugeDisallowed(600, Level::k2M)) << "faults map it small";
}

// Covers: SHD-07, ROLE-34
TEST_F(WriteTrackingTest, PagesWithoutGuestPtesTrackNothing) {
  ShadowPageState& root = Page(600, NestedRole(4));
  EXPECT_EQ(Trackers(600), 1);
  ShadowPageState& top = Page(600, PassthroughRole());
  Page(600, DirectRole(2));
  EXPECT_EQ(Trackers(600), 1);
  Zap(root);
  EXPECT_EQ(Trackers(600), 0);
  EXPECT_FALSE(pages_.tracking().AnyIndirectPages());
  EXPECT_FALSE(HugeDisallowed(600, Level::k2M));
  EXPECT_FALSE(top.IsInvalid());
}

// Covers: SHD-10
TEST_F(WriteTrackingTest, TheSlotIsTheOneOfTheRolesAddressSpace) {
  vm_.AddSlot(1, GfnRange::Of(Gfn(512), 1024));
  PageRole::Fields fields = IndirectRole(2).fields();
  fields.as_id = 1;
  Page(600, PageRole::Of(fields));
  EXPECT_EQ(Trackers(600), 0);
  EXPECT_EQ(Rmaps(600, 1).WriteTrackers(Gfn(600)), 1);
  EXPECT_THAT(vm_.protected_as_ids, ElementsAre(1));
}

}  // namespace
}  // namespace mmu
