#include "mmu_core/shadow/shadow_split.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/rmap/pte_list_cache.h"
#include "mmu_core/rmap/pte_list_pool.h"
#include "mmu_core/rmap/rmap_test_util.h"
#include "mmu_core/shadow/shadow_caches.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/flush_trace.h"
#include "mmu_core/testing/hold_clock.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/lock_waiters.h"
#include "mmu_core/testing/shadow_test_util.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/tlb/tlb_flush_batch.h"
#include "mmu_core/tlb/tlb_tag.h"
#include "mmu_core/tlb/vcpu_tlb.h"

namespace mmu {
namespace {

using ::mmu::testing::ContentsOf;
using ::mmu::testing::FlushTrace;
using ::mmu::testing::IndirectRole;
using ::mmu::testing::LockTrace;
using ::mmu::testing::NestedRole;
using ::mmu::testing::ShadowFixture;
using ::testing::ElementsAre;

constexpr uint64_t k2MPages = PagesPer(Level::k2M);
constexpr uint64_t k1GPages = PagesPer(Level::k1G);
constexpr uint64_t kLarge = 4 * k2MPages;  // a gfn

constexpr AccessRights kReadExec = kMayRead | kMayUser | kMayExec;

class ShadowSplitTest : public ::testing::Test, protected ShadowFixture {
 protected:
  ShadowSplitTest() : ShadowFixture(TdpEnabled::kYes) {
    pages_.SetLimit(lock_, 3000, nullptr);
  }

  const Memslot& slot() { return *vm_.SlotOf(0, Gfn(0)); }
  SplitOutcome Split(GfnRange range, Level target = Level::k4K) {
    return split_.Split(lock_, slot(), range, target, SplitTrigger::kEager,
                        caches_, nullptr);
  }
  SplitOutcome SplitAll(Level target = Level::k4K) {
    return Split(slot().range(), target);
  }
  // Adds a leaf that maps `gfn` by a huge page, in the `n`-th shadow page of
  // L2. Returns its entry.
  SpteSlot& MapLarge(uint64_t gfn, int n, AccessRights access = kAllRights,
                     int level = 2) {
    ShadowPageState& page = Page(10 + n, NestedRole(level));
    TopUp();
    const bool write = access.Has(kMayWrite);
    pages_.links().AddLeaf(lock_, page.EntryAt(0),
                           SpteFormat::Ept().MakeLeaf({.level = page.level(),
                                                       .pfn = Pfn(gfn),
                                                       .write = write,
                                                       .access = access}),
                           {Gfn(gfn), access}, Rmaps(gfn), caches_.lists,
                           nullptr);
    return page.EntryAt(0);
  }
  // The page that the split of `sptep` has linked.
  static ShadowPageState& ChildOfSplit(const SpteSlot& sptep) {
    MMU_CHECK(sptep.Load().IsPresentTable(PageHolding(sptep).level()));
    return ChildAt(sptep.Load());
  }
  static bool IsHuge(const SpteSlot& sptep) {
    return sptep.Load().IsPresentLeaf(PageHolding(sptep).level());
  }
  uint64_t Leafs(Level level) const { return counters_.Leafs(level); }

  ShadowSplit split_{Parts(), pages_, {}};
};

// Covers: SHD-70
TEST_F(ShadowSplitTest, NothingIsSplitWithoutTheTdpMmuOrRmaps) {
  SpteSlot& sptep = MapLarge(kLarge, 0);
  ShadowSplit without_tdp(Parts(), pages_, {.tdp = TdpEnabled::kNo});
  SplitOutcome outcome =
      without_tdp.Split(lock_, slot(), slot().range(), Level::k4K,
                        SplitTrigger::kEager, caches_, nullptr);
  EXPECT_EQ(outcome.split_2m_count, 0);
  EXPECT_EQ(outcome.next_gfn, slot().range().end);
  Memslot no_rmaps = slot();
  no_rmaps.rmaps = nullptr;
  outcome = split_.Split(lock_, no_rmaps, slot().range(), Level::k4K,
                         SplitTrigger::kEager, caches_, nullptr);
  EXPECT_EQ(outcome.split_2m_count, 0);
  EXPECT_TRUE(IsHuge(sptep));
}

// The small SPTEs have all bits of the huge one, and the split flushes no TLB.
// Covers: SHD-77, SHD-79, SHD-83, SPTE-26
TEST_F(ShadowSplitTest, ASplitTranslatesAsBeforeAndFlushesNothing) {
  const SpteFormat& format = SpteFormat::Ept();
  SpteSlot& sptep = MapLarge(kLarge, 0);
  const Spte huge =
      format.WithoutAccessed(sptep.Load().Without(format.dirty_mask()));
  sptep.Store(huge);
  const uint64_t flushes = Flushes();
  const SplitOutcome outcome = SplitAll();
  EXPECT_EQ(outcome.split_2m_count, 1);
  EXPECT_EQ(outcome.split_1g_count, 0);
  EXPECT_EQ(Flushes(), flushes);
  EXPECT_EQ(counters_.Splits(Level::k2M, SplitTrigger::kEager), 1u);
  EXPECT_EQ(Leafs(Level::k2M), 0u);
  EXPECT_EQ(Leafs(Level::k4K), 512u);
  EXPECT_EQ(RmapCount(kLarge, Level::k2M), 0u);

  ShadowPageState& child = ChildOfSplit(sptep);
  EXPECT_TRUE(child.page->role.IsDirect());
  EXPECT_TRUE(child.page->role.guest_mode());
  EXPECT_EQ(child.level(), Level::k4K);
  EXPECT_EQ(child.gfn(), Gfn(kLarge));
  EXPECT_EQ(child.page->role.access(), kAllRights);
  for (int i = 0; i < kEntriesPerTable; ++i) {
    const Spte small = child.EntryAt(i).Load();
    ASSERT_EQ(small.pfn(), Pfn(kLarge + i));
    ASSERT_EQ(small.bits() & ~spte_bits::kAddress,
              huge.bits() & ~spte_bits::kAddress & ~spte_bits::kPageSize);
    ASSERT_EQ(RmapCount(kLarge + i), 1u);
  }
  EXPECT_EQ(SplitAll().split_2m_count, 0) << "nothing is left";
}

// The small SPTEs have the bits that the processor sets in the huge SPTE while
// the table is filled.
// Covers: SHD-83, SPTE-26
TEST_F(ShadowSplitTest, Race11BitsSetWhileTheTableIsFilledAreInTheTable) {
  const SpteFormat& format = SpteFormat::Ept();
  SpteSlot& sptep = MapLarge(kLarge, 0);
  sptep.FetchAnd(~(format.accessed_mask() | format.dirty_mask()));
  {
    testing::LockTrace trace([&](const testing::LockTrace::Event& event) {
      if (event.point != HookPoint::kTableFilledToLink) return;
      sptep.FetchOr(format.accessed_mask() | format.dirty_mask());
    });
    EXPECT_EQ(SplitAll().split_2m_count, 1);
  }
  ShadowPageState& child = ChildOfSplit(sptep);
  for (int i = 0; i < kEntriesPerTable; ++i) {
    const Spte small = child.EntryAt(i).Load();
    ASSERT_TRUE(format.IsAccessed(small) && format.IsDirty(small)) << i;
  }
}

// The processor uses the huge SPTE after the split has read it and before the
// split exchanges it. The split must use the bits that the exchange returns,
// not those that it read before.
// Covers: SHD-83, SPTE-26, SPTE-33, TST-50
TEST_F(ShadowSplitTest, Race11BitSetBetweenTheLastLookAndTheDropIsInTheTable) {
  const SpteFormat& format = SpteFormat::Ept();
  SpteSlot& sptep = MapLarge(kLarge, 0);
  sptep.FetchAnd(~format.accessed_mask());
  sptep.FetchOr(format.dirty_mask());
  int looks = 0;
  {
    testing::LockTrace trace([&](const testing::LockTrace::Event& event) {
      if (event.point != HookPoint::kSnapshotToStore) return;
      ++looks;
      EXPECT_FALSE(format.IsAccessed(sptep.Load()));
      sptep.FetchOr(format.accessed_mask());
    });
    EXPECT_EQ(SplitAll().split_2m_count, 1);
  }
  EXPECT_EQ(looks, 1);
  ShadowPageState& child = ChildOfSplit(sptep);
  for (int i = 0; i < kEntriesPerTable; ++i) {
    const Spte small = child.EntryAt(i).Load();
    ASSERT_TRUE(format.IsAccessed(small) && format.IsDirty(small)) << i;
  }
}

// Another alias has brought the small SPTEs. They do not get the Dirty bit,
// because the next write is noticed only while Dirty is clear.
// Covers: SHD-77
TEST_F(ShadowSplitTest, AnAliasGivesItsAccessedBitAloneToLeafsThatWereThere) {
  const SpteFormat& format = SpteFormat::Ept();
  SpteSlot& one = MapLarge(kLarge, 0);
  ASSERT_EQ(SplitAll().split_2m_count, 1);
  ShadowPageState& child = ChildOfSplit(one);
  child.EntryAt(3).FetchAnd(~(format.accessed_mask() | format.dirty_mask()));
  SpteSlot& alias = MapLarge(kLarge, 1);
  ASSERT_EQ(SplitAll().split_2m_count, 1);
  ASSERT_EQ(&ChildOfSplit(alias), &child);
  EXPECT_TRUE(format.IsAccessed(child.EntryAt(3).Load()));
  EXPECT_FALSE(format.IsDirty(child.EntryAt(3).Load()));
}

// Covers: SHD-71
TEST_F(ShadowSplitTest, AHoldEndsAtItsLimitThoughNobodyWaits) {
  for (int n = 0; n < 20; ++n) MapLarge(kLarge + n * k2MPages, n);
  const testing::StillHoldClock clock;
  const HoldLimit limit{.entries = 2048};
  uint64_t most = 0;
  uint64_t before = 0;
  {
    testing::LockTrace trace([&](const testing::LockTrace::Event& event) {
      if (event.point != HookPoint::kUnlock) return;
      const uint64_t now = counters_.Splits(Level::k2M, SplitTrigger::kEager);
      most = std::max(most, now - before);
      before = now;
    });
    EXPECT_EQ(split_
                  .Split(lock_, slot(), slot().range(), Level::k4K,
                         SplitTrigger::kEager, caches_, nullptr, limit)
                  .split_2m_count,
              20);
  }
  EXPECT_GE(most, 1u);
  EXPECT_LE(most, 5u);
}

// Covers: SHD-71, SHD-77
TEST_F(ShadowSplitTest, AllAliasesOfAGigabyteAreSplitDownToSmallPages) {
  SpteSlot& one = MapLarge(k1GPages, 0, kAllRights, 3);
  SpteSlot& alias = MapLarge(k1GPages, 1, kAllRights, 3);
  const uint64_t pages = pages_.in_use();
  const uint64_t flushes = Flushes();
  const SplitOutcome outcome = SplitAll();
  EXPECT_EQ(outcome.split_1g_count, 2);
  EXPECT_EQ(outcome.split_2m_count, 512) << "of the page that both share";
  EXPECT_EQ(outcome.limit_count, 0);
  EXPECT_EQ(&ChildOfSplit(one), &ChildOfSplit(alias));
  EXPECT_EQ(ContentsOf(ChildOfSplit(one).parents),
            (std::multiset<const SpteSlot*>{&one, &alias}));
  EXPECT_EQ(pages_.in_use(), pages + 1 + 512);
  EXPECT_EQ(Leafs(Level::k1G), 0u);
  EXPECT_EQ(Leafs(Level::k2M), 0u);
  EXPECT_EQ(Leafs(Level::k4K), k1GPages);
  EXPECT_EQ(Flushes(), flushes) << "both were split before any of the second";
}

// Covers: SHD-71
TEST_F(ShadowSplitTest, TheTargetAndTheRangeBoundASplit) {
  SpteSlot& large = MapLarge(kLarge, 0);
  SpteSlot& outside = MapLarge(kLarge + k2MPages, 1);
  SpteSlot& larger = MapLarge(k1GPages, 2, kAllRights, 3);
  SplitOutcome outcome = SplitAll(Level::k2M);
  EXPECT_EQ(outcome.split_1g_count, 1);
  EXPECT_EQ(outcome.split_2m_count, 0);
  EXPECT_TRUE(IsHuge(large));
  EXPECT_TRUE(IsHuge(ChildOfSplit(larger).EntryAt(7)));
  outcome = Split(GfnRange::Of(Gfn(kLarge + 100), 1));
  EXPECT_EQ(outcome.split_2m_count, 1);
  EXPECT_FALSE(IsHuge(large));
  EXPECT_TRUE(IsHuge(outside));
}

// Covers: SHD-77
TEST_F(ShadowSplitTest, AliasesWithOtherRightsGetPagesOfTheirOwn) {
  SpteSlot& one = MapLarge(kLarge, 0);
  SpteSlot& alias = MapLarge(kLarge, 1, kReadExec);
  EXPECT_EQ(SplitAll().split_2m_count, 2);
  EXPECT_NE(&ChildOfSplit(one), &ChildOfSplit(alias));
  EXPECT_EQ(ChildOfSplit(alias).page->role.access(), kReadExec);
  EXPECT_TRUE(ChildOfSplit(one).EntryAt(3).Load().IsWritable());
  EXPECT_FALSE(ChildOfSplit(alias).EntryAt(3).Load().IsWritable());
  EXPECT_EQ(RmapCount(kLarge + 3), 2u);
}

// Covers: SHD-72
TEST_F(ShadowSplitTest, PagesThatAreTornDownOrNoNestedGuestsAreLeftAlone) {
  SpteSlot& torn_down = MapLarge(kLarge, 0);
  SpteSlot& split = MapLarge(kLarge, 1);
  SpteSlot& unsync = MapLarge(kLarge, 2);
  ShadowPageState& l1 = Page(1, IndirectRole(2));
  Map(l1, 0, kLarge);
  PageHolding(torn_down).invalid.store(true);
  PageHolding(unsync).unsync.store(true);
  EXPECT_EQ(SplitAll().split_2m_count, 1);
  PageHolding(torn_down).invalid.store(false);
  PageHolding(unsync).unsync.store(false);
  EXPECT_TRUE(IsHuge(torn_down));
  EXPECT_TRUE(IsHuge(unsync));
  EXPECT_TRUE(IsHuge(l1.EntryAt(0)));
  EXPECT_FALSE(IsHuge(split)) << "it comes after some that are left alone";
}

// Covers: SHD-73
TEST_F(ShadowSplitTest, WithFivePagesAvailableNothingIsSplitWithSixItIs) {
  SpteSlot& first = MapLarge(kLarge, 0);
  SpteSlot& second = MapLarge(kLarge + k2MPages, 1);
  pages_.SetLimit(lock_, ShadowPages::kMinLimit, nullptr);
  for (uint64_t gfn = 100; pages_.Available() > 5; ++gfn) {
    Page(gfn, IndirectRole(1));
  }
  SplitOutcome outcome = SplitAll();
  EXPECT_EQ(outcome.split_2m_count, 0);
  EXPECT_EQ(outcome.limit_count, 2);
  EXPECT_EQ(outcome.no_memory_count, 0);
  EXPECT_EQ(outcome.next_gfn, slot().range().end);
  EXPECT_EQ(counters_.SplitFailures(SplitFailure::kLimit), 2u);
  EXPECT_TRUE(IsHuge(first));

  pages_.SetLimit(lock_, ShadowPages::kMinLimit + 1, nullptr);
  ASSERT_EQ(pages_.Available(), 6u);
  outcome = SplitAll();
  EXPECT_EQ(outcome.split_2m_count, 1);
  EXPECT_EQ(outcome.limit_count, 1);
  EXPECT_FALSE(IsHuge(first));
  EXPECT_TRUE(IsHuge(second));
  EXPECT_EQ(pages_.Available(), 5u);
}

// A waiting thread gets the lock before anything is split. It may zap a huge
// SPTE that was to be split.
// Covers: SHD-74, DL-27
TEST_F(ShadowSplitTest, WhoWaitsGetsTheLockAndMayZapWhatWasToBeSplit) {
  SpteSlot& zapped = MapLarge(kLarge, 0);
  SpteSlot& alias = MapLarge(kLarge, 1);
  SpteSlot& next = MapLarge(kLarge + k2MPages, 2);
  uint64_t split_before = 99;
  std::thread waiter([&] {
    MmuWriteLocked lock(mmu_lock_, LockOp::kNotifier);
    split_before = counters_.Splits(Level::k2M, SplitTrigger::kEager);
    for (SpteSlot* sptep : {&zapped, &alias}) {
      pages_.links().DropLeaf(lock, *sptep);
    }
  });
  while (!lock_.NeedYield()) std::this_thread::yield();
  const SplitOutcome outcome = Split(GfnRange::Of(Gfn(kLarge), 2 * k2MPages));
  waiter.join();
  EXPECT_EQ(split_before, 0u);
  EXPECT_EQ(outcome.split_2m_count, 1);
  EXPECT_EQ(zapped.Load(), Spte::Initial());
  EXPECT_FALSE(IsHuge(next));
}

// A walk over rmaps takes time although they hold nothing to split.
// Covers: SHD-71
TEST_F(ShadowSplitTest, WhoWaitsGetsTheLockFromAWalkThatSplitsNothing) {
  std::thread waiter(
      [this] { MmuWriteLocked held(mmu_lock_, LockOp::kNotifier); });
  while (!lock_.NeedYield()) std::this_thread::yield();
  {
    LockTrace trace;
    EXPECT_EQ(SplitAll().split_2m_count, 0);
    EXPECT_GE(trace.CountOf(HookPoint::kYield), 1);
  }
  WithoutLock([&] { waiter.join(); });
}

// Covers: SHD-74
TEST_F(ShadowSplitTest, ASplitGoesOnWhileOthersAlwaysWait) {
  for (int n = 0; n < 8; ++n) MapLarge(kLarge, n, AccessRights(1 + 2 * n));
  testing::LockWaiters waiters(mmu_lock_, /*most=*/100);
  waiters.Add();
  EXPECT_EQ(SplitAll().split_2m_count, 8);
  EXPECT_GE(waiters.count(), 8u) << "one has the lock before each split";
  EXPECT_LT(waiters.count(), 20u) << "and one split follows";
  WithoutLock([&] { waiters.Join(); });
}

// The caches hold between the smallest and the largest number of descriptors.
// They hold no translations, because the new page is direct.
// Covers: SHD-75, SHD-81
TEST_F(ShadowSplitTest, CachesAreFilledWithoutTheLock) {
  SpteSlot& sptep = MapLarge(kLarge, 0);
  SpteSlot& other = MapLarge(kLarge + k2MPages, 1);
  PteListPool lists;
  ShadowCaches caches({tables_, states_, translations_, lists});
  const auto split = [&](GfnRange range) {
    return split_
        .Split(lock_, slot(), range, Level::k4K, SplitTrigger::kEager, caches,
               nullptr)
        .split_2m_count;
  };
  EXPECT_TRUE(caches.NeedTopUpForSplit());
  LockTrace trace;
  WithoutLock([] {});  // makes the trace see that the lock is held
  EXPECT_EQ(split(GfnRange::Of(Gfn(kLarge), 1)), 1);
  EXPECT_FALSE(IsHuge(sptep));
  EXPECT_EQ(trace.HeldAt(HookPoint::kTopUp), "none/-");
  EXPECT_EQ(trace.CountOf(HookPoint::kTopUp), 3);
  EXPECT_EQ(caches.lists.count(), 553) << "a plain split takes none";
  EXPECT_EQ(caches.tables.count(), 39);
  EXPECT_EQ(caches.states.count(), 39);
  EXPECT_EQ(caches.translations.count(), 0);
  EXPECT_EQ(split(slot().range()), 1);
  EXPECT_FALSE(IsHuge(other));
  EXPECT_EQ(trace.CountOf(HookPoint::kTopUp), 3) << "enough was left";
}

// Covers: SHD-81
TEST_F(ShadowSplitTest, WithoutDescriptorsNothingIsSplitAndWhatWasGotIsKept) {
  SpteSlot& sptep = MapLarge(kLarge, 0);
  PteListPool few(500);
  ShadowCaches caches({tables_, states_, translations_, few});
  const SplitOutcome outcome =
      split_.Split(lock_, slot(), slot().range(), Level::k4K,
                   SplitTrigger::kEager, caches, nullptr);
  EXPECT_EQ(outcome.split_2m_count, 0);
  EXPECT_EQ(outcome.no_memory_count, 1);
  EXPECT_EQ(counters_.SplitFailures(SplitFailure::kNoMemory), 1u);
  EXPECT_TRUE(IsHuge(sptep));
  EXPECT_GT(caches.lists.count(), 0);
  EXPECT_LE(caches.lists.count(), 500);
}

// Each of the 512 rmaps has one entry, so each needs its first descriptor. So
// does the list of parents of the child page, which an alias has left behind.
// Covers: SHD-75, SHD-76
TEST_F(ShadowSplitTest, ASplitTakesAtMost513Descriptors) {
  SpteSlot& alias = MapLarge(kLarge, 0);
  ASSERT_EQ(SplitAll().split_2m_count, 1);
  ShadowPageState& child = ChildOfSplit(alias);
  for (int i = 0; i < kEntriesPerTable; ++i) {
    pages_.links().DropLeaf(lock_, child.EntryAt(i));
  }
  ShadowPageState& other = Page(1, NestedRole(1));
  for (int i = 0; i < kEntriesPerTable; ++i) Map(other, i, kLarge + i);
  SpteSlot& sptep = MapLarge(kLarge, 1);
  TopUp();
  ASSERT_GE(caches_.lists.count(), 513);
  const int before = caches_.lists.count();
  ASSERT_EQ(SplitAll().split_2m_count, 1);
  EXPECT_EQ(caches_.lists.count(), before - 513);
  EXPECT_EQ(&ChildOfSplit(sptep), &child);
}

// Like the test above, with full heads: 14 entries each.
// Covers: SHD-76
TEST_F(ShadowSplitTest, FullHeadsTakeADescriptorEach) {
  for (int n = 0; n < 14; ++n) {
    ShadowPageState& other = Page(100 + n, NestedRole(1));
    for (int i = 0; i < kEntriesPerTable; ++i) Map(other, i, kLarge + i);
  }
  MapLarge(kLarge, 1);
  TopUp();
  const int before = caches_.lists.count();
  ASSERT_EQ(SplitAll().split_2m_count, 1);
  EXPECT_EQ(caches_.lists.count(), before - 512);
}

// Two aliases, of which only one was split. Some entries of its tables are
// empty, as after a zap by a notifier or for the NX huge page mitigation.
class PartlySplitAliasTest : public ShadowSplitTest {
 protected:
  PartlySplitAliasTest() {
    MapLarge(k1GPages, 0, kAllRights, 3);
    SplitAll(Level::k2M);
    child_ = &ChildOfSplit(PageHolding0().EntryAt(0));
    // Splits one of its 2M pages further.
    Split(GfnRange::Of(Gfn(k1GPages + 3 * k2MPages), 1));
    table_ = &ChildOfSplit(child_->EntryAt(3));
  }
  ShadowPageState& PageHolding0() { return Page(10, NestedRole(3)); }
  // Fills the TLB of a vCPU that has used the alias.
  void Cache(uint64_t gfn, Level level) {
    vcpu_tlb_.Select(TlbTag::OfPcid(0));
    vcpu_tlb_.Insert({.base_page = RoundDown(PageNumber(gfn), level),
                      .gfn = RoundDown(Gfn(gfn), level),
                      .pfn = Pfn(RoundDown(Gfn(gfn), level).value()),
                      .level = level});
  }

  ShadowPageState* child_ = nullptr;
  ShadowPageState* table_ = nullptr;
  VcpuTlb vcpu_tlb_;
};

// Covers: SHD-78, SHD-79, SHD-80, TLB-06
TEST_F(PartlySplitAliasTest, TheTableOfAnotherAliasForcesAFlushBeforeTheLink) {
  pages_.links().DropLeaf(lock_, table_->EntryAt(9));
  const uint64_t unmapped = k1GPages + 3 * k2MPages + 9;
  SpteSlot& sptep = MapLarge(k1GPages, 1, kAllRights, 3);
  Cache(unmapped, Level::k1G);
  const uint64_t flushes = Flushes();
  std::vector<std::string> trace;
  const FlushTrace flushed([&](const TlbFlush&) {
    trace.push_back(sptep.Load() == Spte::Initial() ? "dropped" : "there");
    vcpu_tlb_.FlushAll();
  });
  const SplitOutcome outcome = SplitAll(Level::k2M);
  EXPECT_EQ(outcome.split_1g_count, 1);
  EXPECT_EQ(Flushes(), flushes + 1) << "one, although 511 were no tables";
  EXPECT_THAT(trace, ElementsAre("dropped"));
  EXPECT_THAT(flushed.gfns(),
              ElementsAre(GfnRange::Of(Gfn(k1GPages), k1GPages)));
  EXPECT_EQ(&ChildOfSplit(sptep), child_);
  // No SPTE maps the page, so no later change will flush for it: no TLB may
  // have it.
  EXPECT_EQ(RmapCount(unmapped), 0u);
  EXPECT_EQ(vcpu_tlb_.Lookup(PageNumber(unmapped)), nullptr);
  EXPECT_EQ(&ChildOfSplit(child_->EntryAt(3)), table_) << "left as it is";
  EXPECT_EQ(Leafs(Level::k2M), 511u);
}

// Leafs that are in the table already need no flush, and neither do leafs that
// the split adds: both agree with stale large translations.
// Covers: SHD-78, SHD-79
TEST_F(ShadowSplitTest, ThePageOfAnotherAliasWithLeafsOnlyForcesNoFlush) {
  SpteSlot& alias = MapLarge(kLarge, 0);
  SplitAll();
  ShadowPageState& child = ChildOfSplit(alias);
  for (int i = 0; i < 100; ++i) {
    pages_.links().DropLeaf(lock_, child.EntryAt(i));
  }
  const Spte kept = child.EntryAt(200).Load().Without(spte_bits::kWrite);
  child.EntryAt(200).Store(kept);
  SpteSlot& sptep = MapLarge(kLarge, 1);
  const uint64_t flushes = Flushes();
  EXPECT_EQ(SplitAll().split_2m_count, 1);
  EXPECT_EQ(Flushes(), flushes);
  EXPECT_EQ(&ChildOfSplit(sptep), &child);
  EXPECT_EQ(child.EntryAt(200).Load(), kept) << "not made anew";
  EXPECT_EQ(Leafs(Level::k4K), 512u) << "only what was missing was added";
  EXPECT_EQ(Leafs(Level::k2M), 0u);
}

// A page that is mapped too often loses all mappings, also the one that the
// split just added. So the table that replaces the huge SPTE does not map it,
// and the split must flush as in SHD-79.
// Covers: SHD-14
TEST_F(ShadowSplitTest, AnRmapThatGetsTooLongIsFlushedWithTheHugePage) {
  ShadowPageState* page = nullptr;
  for (int i = 0; i < 1001; ++i) {
    if (i % 512 == 0) page = &Page(100 + i, NestedRole(1));
    ASSERT_FALSE(Map(*page, i % 512, kLarge + 5));
  }
  SpteSlot& sptep = MapLarge(kLarge, 0);
  VcpuTlb vcpu_tlb;
  vcpu_tlb.Select(TlbTag::OfPcid(0));
  std::vector<bool> huge_at_flush;
  const FlushTrace flushed([&](const TlbFlush&) {
    huge_at_flush.push_back(IsHuge(sptep));
    vcpu_tlb.FlushAll();
    // A running vCPU walks the tables again between the two flushes.
    if (IsHuge(sptep)) {
      vcpu_tlb.Insert({.base_page = PageNumber(kLarge),
                       .gfn = Gfn(kLarge),
                       .pfn = Pfn(kLarge),
                       .level = Level::k2M});
    }
  });
  EXPECT_EQ(SplitAll().split_2m_count, 1);
  EXPECT_THAT(huge_at_flush, ElementsAre(true, false));
  EXPECT_THAT(flushed.gfns(), ElementsAre(GfnRange::Of(Gfn(kLarge + 5), 1),
                                          GfnRange::Of(Gfn(kLarge), 512)));
  EXPECT_EQ(RmapCount(kLarge + 5), 0u);
  EXPECT_EQ(vcpu_tlb.Lookup(PageNumber(kLarge + 5)), nullptr);
}

TEST_F(ShadowSplitTest, SmallPagesAreExecutableWhereTheMitigationMadeLargeNot) {
  const SpteFormat& format = SpteFormat::Ept();
  NxHugePages nx;
  nx.SetMitigated(true);
  ShadowSplit split(Parts(), pages_, {.nx_huge_pages = &nx});
  SpteSlot& executable = MapLarge(kLarge, 0);
  SpteSlot& not_executable = MapLarge(kLarge, 1, kMayRead | kMayWrite);
  executable.Store(format.WithoutExecute(executable.Load()));
  EXPECT_EQ(split
                .Split(lock_, slot(), slot().range(), Level::k4K,
                       SplitTrigger::kEager, caches_, nullptr)
                .split_2m_count,
            2);
  EXPECT_EQ(format.RightsOf(ChildOfSplit(executable).EntryAt(5).Load()),
            kAllRights);
  EXPECT_EQ(format.RightsOf(ChildOfSplit(not_executable).EntryAt(5).Load()),
            kMayRead | kMayWrite);
}

}  // namespace
}  // namespace mmu
