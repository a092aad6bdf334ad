#include "mmu_core/shadow/unsync_marks.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/shadow_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::DirectRole;
using ::mmu::testing::IndirectRole;
using ::mmu::testing::ShadowFixture;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

// A root with two directories; the first has two tables, the second shares the
// second of these.
//
//   root -1-> left -1-> a
//        |        -2-> b
//        -2-> right -3-> b
class UnsyncMarksTest : public ::testing::Test, protected ShadowFixture {
 protected:
  UnsyncMarksTest() {
    Link(root_, 1, left_);
    Link(root_, 2, right_);
    Link(left_, 1, a_);
    Link(left_, 2, b_);
    Link(right_, 3, b_);
  }
  std::vector<ShadowPageState*> Collect() {
    UnsyncBatch batch;
    pages_.unsync().Collect(lock_, root_, batch);
    return {batch.pages.begin(), batch.pages.begin() + batch.count};
  }
  uint64_t Unsync() { return ShadowCounters::Get(stats().mmu_unsync); }

  ShadowPageState& root_ = Page(1, IndirectRole(3));
  ShadowPageState& left_ = Page(2, IndirectRole(2));
  ShadowPageState& right_ = Page(3, IndirectRole(2));
  ShadowPageState& a_ = Page(4, IndirectRole(1));
  ShadowPageState& b_ = Page(5, IndirectRole(1));
};

// Covers: SHD-31, STAT-09
TEST_F(UnsyncMarksTest, EachAncestorHasABitForTheWayDown) {
  MarkUnsync(b_);
  EXPECT_EQ(Unsync(), 1u);
  EXPECT_TRUE(left_.unsync_child_bitmap.test(2));
  EXPECT_TRUE(right_.unsync_child_bitmap.test(3));
  EXPECT_TRUE(root_.unsync_child_bitmap.test(1));
  EXPECT_TRUE(root_.unsync_child_bitmap.test(2));
  EXPECT_EQ(root_.unsync_children, 2u);
  EXPECT_EQ(left_.unsync_children, 1u);

  MarkUnsync(b_);
  EXPECT_EQ(Unsync(), 1u);
  MarkUnsync(a_);
  EXPECT_EQ(Unsync(), 2u);
  EXPECT_EQ(left_.unsync_children, 2u);
  EXPECT_EQ(root_.unsync_children, 2u) << "marked already";

  // The bits of a page that is synchronised stay until the next collection.
  pages_.unsync().ClearUnsync(lock_, b_);
  EXPECT_EQ(Unsync(), 1u);
  MarkUnsync(b_);
  EXPECT_EQ(Unsync(), 2u);
  EXPECT_EQ(left_.unsync_children, 2u) << "counted already";
  EXPECT_EQ(right_.unsync_children, 1u);
}

TEST_F(UnsyncMarksTest, PagesBecomeUnsyncUnderTheLockInReadModeToo) {
  WithoutLock([this] {
    MmuReadLocked read(mmu_lock_, LockOp::kFault);
    MutexLock lock(pages_.unsync().lock());
    pages_.unsync().MarkUnsync(read, a_);
  });
  EXPECT_TRUE(a_.unsync);
  EXPECT_TRUE(root_.unsync_child_bitmap.test(1));
}

TEST_F(UnsyncMarksTest, WhatIsUnsyncIsCollectedOnceAndStaleBitsGo) {
  MarkUnsync(a_);
  MarkUnsync(b_);
  EXPECT_THAT(Collect(), UnorderedElementsAre(&a_, &b_));
  pages_.unsync().ClearUnsync(lock_, b_);
  EXPECT_EQ(Unsync(), 1u);
  EXPECT_THAT(Collect(), UnorderedElementsAre(&a_));
  EXPECT_EQ(right_.unsync_children, 0u);
  EXPECT_EQ(root_.unsync_children, 1u);
  pages_.unsync().ClearUnsync(lock_, a_);
  EXPECT_THAT(Collect(), IsEmpty());
  for (const ShadowPageState* page : {&root_, &left_, &right_}) {
    EXPECT_TRUE(page->unsync_child_bitmap.none());
    EXPECT_EQ(page->unsync_children, 0u);
  }
  // All pages up to the root are marked again.
  MarkUnsync(b_);
  EXPECT_THAT(Collect(), UnorderedElementsAre(&b_));
}

TEST_F(UnsyncMarksTest, ABitOfALinkThatIsGoneLeadsNowhere) {
  MarkUnsync(a_);
  pages_.links().UnlinkChild(lock_, left_.EntryAt(1));
  EXPECT_THAT(Collect(), IsEmpty());
  EXPECT_EQ(root_.unsync_children, 0u);
  EXPECT_TRUE(a_.unsync) << "it is, only not below this root";
  Link(right_, 9, a_);
  EXPECT_THAT(Collect(), UnorderedElementsAre(&a_));
}

TEST_F(UnsyncMarksTest, ManyAreCollectedSixteenAtATime) {
  for (uint64_t i = 0; i < 40; ++i) {
    ShadowPageState& table = Page(100 + i, IndirectRole(1));
    Link(left_, static_cast<int>(100 + i), table);
    MarkUnsync(table);
  }
  std::vector<uint64_t> sizes;
  for (;;) {
    const std::vector<ShadowPageState*> batch = Collect();
    sizes.push_back(batch.size());
    if (batch.empty()) break;
    for (ShadowPageState* page : batch) {
      EXPECT_TRUE(page->unsync);
      pages_.unsync().ClearUnsync(lock_, *page);
    }
  }
  EXPECT_THAT(sizes, ::testing::ElementsAre(16, 16, 8, 0));
  EXPECT_EQ(Unsync(), 0u);
}

using UnsyncMarksDeathTest = UnsyncMarksTest;

TEST_F(UnsyncMarksDeathTest, OnlyPagesOfLevelOneWithGuestPtesBecomeUnsync) {
  EXPECT_DEATH(MarkUnsync(left_), "k4K");
  ShadowPageState& direct = Page(512, DirectRole(1));
  EXPECT_DEATH(MarkUnsync(direct), "HasGuestPtes");
}

}  // namespace
}  // namespace mmu
