#include "mmu_core/mmu/nx_huge_pages.h"

#include <array>

#include "gtest/gtest.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

class NxHugePagesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(cache_.TopUp(3).ok());
    for (ShadowPage*& page : pages_) {
      page = cache_.Take();
      page->nx_huge_page_disallowed.store(true);
    }
  }
  void TearDown() override {
    for (ShadowPage* page : pages_) {
      list_.Forget(*page);
      cache_.Put(page);
    }
  }

  TablePool pool_;
  TableCache cache_{pool_};
  NxHugePageList list_;
  std::array<ShadowPage*, 3> pages_;
};

// Covers: SPTE-53, SPTE-54, STAT-12
TEST_F(NxHugePagesTest, TheOldestIsTakenFirstAndTheCountFollows) {
  RcuReadGuard rcu;
  for (ShadowPage* page : pages_) list_.Track(*page);
  EXPECT_EQ(list_.count(), 3u);
  for (size_t i = 0; i < pages_.size(); ++i) {
    EXPECT_EQ(list_.TakeOldest(), pages_[i]);
    EXPECT_FALSE(pages_[i]->nx_huge_page_disallowed.load());
    EXPECT_EQ(list_.count(), 2 - i);
  }
  EXPECT_EQ(list_.TakeOldest(), nullptr);
}

TEST_F(NxHugePagesTest, AnyPageCanLeaveTheList) {
  RcuReadGuard rcu;
  for (ShadowPage* page : pages_) list_.Track(*page);
  list_.Forget(*pages_[1]);
  EXPECT_EQ(list_.count(), 2u);
  list_.Forget(*pages_[1]);  // not listed any more
  EXPECT_EQ(list_.count(), 2u);
  list_.Forget(*pages_[0]);
  EXPECT_EQ(list_.TakeOldest(), pages_[2]);
  EXPECT_EQ(list_.count(), 0u);
}

// Two executed entries lead to one shadow page.
TEST_F(NxHugePagesTest, APageThatIsLinkedAgainIsListedOnce) {
  RcuReadGuard rcu;
  list_.Track(*pages_[0]);
  list_.Track(*pages_[1]);
  list_.Track(*pages_[0]);
  EXPECT_EQ(list_.count(), 2u);
  EXPECT_EQ(list_.TakeOldest(), pages_[0]);
  EXPECT_EQ(list_.TakeOldest(), pages_[1]);
  EXPECT_EQ(list_.TakeOldest(), nullptr);
}

// 1. A fault links a page that is to be listed. 2. A zap unlinks it: Forget. 3.
// The fault lists it: Track must refuse, because no later Forget would remove
// the page.
TEST_F(NxHugePagesTest, APageThatWasUnlinkedBeforeItIsListedStaysOff) {
  RcuReadGuard rcu;
  list_.Forget(*pages_[0]);
  list_.Track(*pages_[0]);
  EXPECT_EQ(list_.count(), 0u);
  EXPECT_EQ(list_.TakeOldest(), nullptr);
}

}  // namespace
}  // namespace mmu
