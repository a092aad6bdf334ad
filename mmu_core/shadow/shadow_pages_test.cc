#include "mmu_core/shadow/shadow_pages.h"

#include <cstdint>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/await.h"
#include "mmu_core/testing/shadow_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::DirectRole;
using ::mmu::testing::IndirectRole;
using ::mmu::testing::NestedRole;
using ::mmu::testing::PassthroughRole;
using ::mmu::testing::ShadowFixture;

class ShadowPagesTest : public ::testing::Test, protected ShadowFixture {};

// Another gfn whose pages are on the same chain of the hash.
uint64_t CollidingWith(uint64_t gfn, int nth = 1) {
  for (uint64_t other = gfn + 1;; ++other) {
    if (ShadowPageSet::ChainOf(Gfn(other)) ==
            ShadowPageSet::ChainOf(Gfn(gfn)) &&
        --nth == 0) {
      return other;
    }
  }
}

// Covers: ROLE-01, SPTE-01, SHD-02, SHD-04, SHD-05, STAT-08, STAT-10
TEST_F(ShadowPagesTest, APageIsFoundByItsGfnAndItsWholeRole) {
  const ShadowPages::Result first = Get(5, IndirectRole(1));
  EXPECT_TRUE(first.created);
  EXPECT_EQ(ShadowCounters::Get(stats().mmu_cache_miss), 1u);
  for (int i = 0; i < kEntriesPerTable; ++i) {
    EXPECT_EQ(first.page.EntryAt(i).Load(), Spte::Initial());
  }
  const ShadowPages::Result again = Get(5, IndirectRole(1));
  EXPECT_FALSE(again.created);
  EXPECT_EQ(&again.page, &first.page);
  EXPECT_EQ(ShadowCounters::Get(stats().mmu_cache_miss), 1u);

  // The same table is shadowed by another page if CR0.WP is 0.
  PageRole::Fields fields = IndirectRole(1).fields();
  fields.cr0_wp = false;
  EXPECT_NE(&Page(5, PageRole::Of(fields)), &first.page);
  EXPECT_NE(&Page(5, DirectRole(1)), &first.page);
  EXPECT_NE(&Page(6, IndirectRole(1)), &first.page);
  EXPECT_EQ(ShadowCounters::Get(stats().mmu_cache_miss), 4u);
  EXPECT_EQ(pages_.in_use(), 4u);
  EXPECT_EQ(ShadowCounters::Get(stats().mmu_shadow_pages), 4u);
}

// Covers: SHD-01, STAT-14
TEST_F(ShadowPagesTest, PagesOfOtherGfnsInOneChainAreCountedAsCollisions) {
  const uint64_t gfn = 100;
  const uint64_t second = CollidingWith(gfn, 1);
  const uint64_t third = CollidingWith(gfn, 2);
  Page(gfn, IndirectRole(1));
  Page(gfn, IndirectRole(2));
  EXPECT_EQ(ShadowCounters::Get(stats().max_mmu_page_hash_collisions), 0u)
      << "the same gfn is no collision";
  Page(second, IndirectRole(1));
  EXPECT_EQ(ShadowCounters::Get(stats().max_mmu_page_hash_collisions), 2u);
  Page(third, IndirectRole(1));
  EXPECT_EQ(ShadowCounters::Get(stats().max_mmu_page_hash_collisions), 3u);
  // The lookup finds the page before it meets any other, and the peak does not
  // fall.
  Page(third, IndirectRole(1));
  EXPECT_EQ(ShadowCounters::Get(stats().max_mmu_page_hash_collisions), 3u);
}

// Covers: SHD-04, ROLE-33
TEST_F(ShadowPagesTest, OnlyPagesWhoseEntriesMayBeGuestLeafsHaveTranslations) {
  for (int level = 1; level <= 5; ++level) {
    EXPECT_EQ(Page(1, IndirectRole(level)).translations != nullptr, level <= 3);
    if (level <= 3) {
      EXPECT_EQ(Page(1, DirectRole(level)).translations, nullptr);
    }
  }
  EXPECT_EQ(Page(1, PassthroughRole()).translations, nullptr);
}

// Covers: SHD-02
TEST_F(ShadowPagesTest, AnUnsyncPageGoesWhenItsTableBecomesADirectory) {
  ShadowPageState& table = Page(7, IndirectRole(1));
  MarkUnsync(table);
  ShadowPageState& other = Page(8, IndirectRole(1));
  MarkUnsync(other);

  Page(7, IndirectRole(1, kMayRead));  // also level 1: zaps nothing
  EXPECT_FALSE(table.IsInvalid());
  Page(7, IndirectRole(2));
  EXPECT_EQ(ShadowCounters::Get(stats().mmu_shadow_zapped), 1u);
  EXPECT_EQ(ShadowCounters::Get(stats().mmu_unsync), 1u);
  EXPECT_FALSE(other.IsInvalid()) << "another gfn";
  WaitForFrees();
  EXPECT_EQ(TablesInUse(), 3);
}

TEST_F(ShadowPagesTest, AnUnsyncPageIsBroughtInStepBeforeItIsReused) {
  ShadowPageState& page = Page(7, IndirectRole(1));
  page.write_flood_count = 2;
  MarkUnsync(page);
  const uint64_t flushes = Flushes();

  std::vector<ShadowPageState*> synced;
  PageSync result = PageSync::kUnchanged;
  const auto sync = [&](ShadowPageState& p) {
    synced.push_back(&p);
    return result;
  };
  EXPECT_EQ(&GetSyncing(7, IndirectRole(1), sync).page, &page);
  EXPECT_THAT(synced, ::testing::ElementsAre(&page));
  EXPECT_TRUE(page.unsync) << "it is not write-protected";
  EXPECT_EQ(page.write_flood_count, 0);
  EXPECT_EQ(Flushes(), flushes);

  result = PageSync::kNeedsFlush;
  EXPECT_EQ(&GetSyncing(7, IndirectRole(1), sync).page, &page);
  EXPECT_EQ(Flushes(), flushes + 1);

  result = PageSync::kFailed;
  const ShadowPages::Result other = GetSyncing(7, IndirectRole(1), sync);
  EXPECT_TRUE(other.created);
  EXPECT_FALSE(other.page.unsync);
  EXPECT_EQ(Flushes(), flushes + 2);
  EXPECT_EQ(pages_.in_use(), 1u);
}

TEST_F(ShadowPagesTest, ADirectPageNeedsNoSync) {
  const ShadowPages::Result page = pages_.GetOrCreate(
      lock_, Gfn(512), DirectRole(1), caches_, /*cost=*/nullptr);
  EXPECT_TRUE(page.created);
  EXPECT_FALSE(pages_
                   .GetOrCreate(lock_, Gfn(512), DirectRole(1), caches_,
                                /*cost=*/nullptr)
                   .created);
}

// Covers: SHD-25, SHD-26, SHD-27, STAT-07
TEST_F(ShadowPagesTest, AFaultFindsRoomBecauseTheOldestGo) {
  pages_.SetLimit(lock_, 64, nullptr);
  for (uint64_t gfn = 0; gfn < 59; ++gfn) Page(gfn, IndirectRole(1));
  EXPECT_EQ(pages_.Available(), 5u);
  EXPECT_TRUE(pages_.MakeAvailable(lock_, nullptr));
  EXPECT_EQ(pages_.in_use(), 59u) << "five are enough";

  Page(59, IndirectRole(1));
  EXPECT_TRUE(pages_.MakeAvailable(lock_, nullptr));
  EXPECT_EQ(pages_.in_use(), 60u - (25 - 4));
  EXPECT_EQ(pages_.Available(), 25u);
  EXPECT_EQ(ShadowCounters::Get(stats().mmu_recycled), 21u);
  // The oldest pages were recycled.
  EXPECT_FALSE(Get(21, IndirectRole(1)).created);
  EXPECT_TRUE(Get(20, IndirectRole(1)).created);

  for (uint64_t gfn = 1000; gfn < 3000; ++gfn) {
    EXPECT_TRUE(pages_.MakeAvailable(lock_, nullptr));
    Page(gfn, IndirectRole(1));
    EXPECT_LE(pages_.in_use(), 64u);
  }
}

// Covers: SHD-25, SHD-27
TEST_F(ShadowPagesTest, RootsInUseStayAndIfNothingElseIsThereThereIsNoRoom) {
  pages_.SetLimit(lock_, 64, nullptr);
  std::vector<ShadowPageState*> roots;
  for (uint64_t gfn = 0; gfn < 63; ++gfn) {
    roots.push_back(&Page(gfn, IndirectRole(4)));
    pages_.zap().GetRoot(lock_, *roots.back());
  }
  Page(100, IndirectRole(1));
  EXPECT_EQ(pages_.Available(), 0u);
  EXPECT_TRUE(pages_.MakeAvailable(lock_, nullptr)) << "one is enough";
  EXPECT_EQ(pages_.Available(), 1u);

  Page(101, IndirectRole(1));
  Page(102,
       IndirectRole(1));  // beyond the room that was made: the limit is soft
  EXPECT_EQ(pages_.in_use(), 65u);
  EXPECT_EQ(pages_.Available(), 0u);
  roots.push_back(&Page(101, IndirectRole(1)));
  pages_.zap().GetRoot(lock_, *roots.back());
  roots.push_back(&Page(102, IndirectRole(1)));
  pages_.zap().GetRoot(lock_, *roots.back());
  EXPECT_FALSE(pages_.MakeAvailable(lock_, nullptr));
  for (ShadowPageState* root : roots) {
    EXPECT_FALSE(root->IsInvalid());
    PutRoot(*root);
  }
}

// Covers: SHD-25, SHD-29
TEST_F(ShadowPagesTest, TheLimitFollowsTheSlotsUntilSomebodyAsksForOne) {
  EXPECT_EQ(ShadowPages::LimitForSlots(uint64_t{1} << 18), 5242u);
  EXPECT_EQ(ShadowPages::LimitForSlots(1), 64u);
  pages_.SetLimitForSlots(lock_, uint64_t{1} << 18, nullptr);
  EXPECT_EQ(pages_.limit(), 5242u);

  for (uint64_t gfn = 0; gfn < 200; ++gfn) Page(gfn, IndirectRole(1));
  pages_.SetLimitForSlots(lock_, 5000, nullptr);
  EXPECT_EQ(pages_.limit(), 100u);
  EXPECT_EQ(pages_.in_use(), 100u) << "what is above it goes";

  EXPECT_EQ(DetailOf(ShadowPages::CheckLimit(63)).field, "shadow_page_limit");
  EXPECT_EQ(ErrnoName(DetailOf(ShadowPages::CheckLimit(63)).kvm_errno),
            "EINVAL");
  EXPECT_TRUE(ShadowPages::CheckLimit(64).ok());
  pages_.SetLimit(lock_, 64, nullptr);
  EXPECT_EQ(pages_.limit(), 64u);
  EXPECT_EQ(pages_.in_use(), 64u);
  pages_.SetLimitForSlots(lock_, uint64_t{1} << 18, nullptr);
  EXPECT_EQ(pages_.limit(), 64u) << "somebody asked for it";
}

// Covers: SHD-29
TEST_F(ShadowPagesTest, ALowerLimitIsReachedBatchByBatch) {
  for (uint64_t gfn = 0; gfn < 500; ++gfn) Page(gfn, IndirectRole(1));
  uint64_t in_between = 0;
  std::thread waiter([&] {
    MmuWriteLocked lock(mmu_lock_, LockOp::kFault);
    in_between = pages_.in_use();
  });
  testing::Await("a thread waits for mmu_lock",
                 [&] { return mmu_lock_.IsContended(); });
  pages_.SetLimit(lock_, 64, nullptr);
  EXPECT_EQ(pages_.in_use(), 64u);
  WithoutLock([&] { waiter.join(); });
  EXPECT_GT(in_between, 64u);
  EXPECT_LT(in_between, 500u);
}

// Covers: SHD-29
TEST_F(ShadowPagesTest, TheLimitIsNotBelowWhatCannotGo) {
  pages_.SetLimit(lock_, 100, nullptr);
  std::vector<ShadowPageState*> roots;
  for (uint64_t gfn = 0; gfn < 90; ++gfn) {
    roots.push_back(&Page(gfn, IndirectRole(4)));
    pages_.zap().GetRoot(lock_, *roots.back());
  }
  pages_.SetLimit(lock_, 64, nullptr);
  EXPECT_EQ(pages_.limit(), 90u);
  for (ShadowPageState* root : roots) PutRoot(*root);
}

TEST_F(ShadowPagesTest, CachesAreFilledForFaultsAndForSplits) {
  WithoutLock([this] {
    ShadowCaches faults({tables_, states_, translations_, lists_});
    EXPECT_TRUE(faults.TopUpForFault(IndirectPages::kNone).ok());
    EXPECT_EQ(faults.tables.count(), 40);
    EXPECT_EQ(faults.states.count(), 40);
    EXPECT_EQ(faults.lists.count(), 40);
    EXPECT_EQ(faults.translations.count(), 0);
    EXPECT_TRUE(faults.TopUpForFault(IndirectPages::kPossible).ok());
    EXPECT_EQ(faults.translations.count(), 40);
    EXPECT_TRUE(faults.NeedTopUpForSplit());
    EXPECT_TRUE(faults.TryTopUpForSplit());
    EXPECT_FALSE(faults.NeedTopUpForSplit());
    EXPECT_EQ(faults.lists.count(), 553);

    TablePool few_tables(4);
    ShadowCaches unlucky({few_tables, states_, translations_, lists_});
    const absl::Status status = unlucky.TopUpForFault(IndirectPages::kPossible);
    EXPECT_EQ(ErrnoName(DetailOf(status).kvm_errno), "ENOMEM");
  });
}

}  // namespace
}  // namespace mmu
