#include "mmu_core/shadow/shadow_unmap.h"

#include <cstdint>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/flush_trace.h"
#include "mmu_core/testing/shadow_test_util.h"
#include "mmu_core/tlb/tlb_flush.h"

namespace mmu {
namespace {

using ::mmu::testing::DirectRole;
using ::mmu::testing::FlushTrace;
using ::mmu::testing::IndirectRole;
using ::mmu::testing::ShadowFixture;

constexpr uint64_t k2MPages = PagesPer(Level::k2M);
constexpr uint64_t k1GPages = PagesPer(Level::k1G);

class ShadowUnmapTest : public ::testing::Test, protected ShadowFixture {
 protected:
  const Memslot& slot() { return *vm_.SlotOf(0, Gfn(0)); }
  bool ZapLeafs(GfnRange range, MayYield may_yield = MayYield::kYes) {
    return unmap_.ZapLeafs(lock_, slot(), range, FlushReason::kNotifier,
                           nullptr, may_yield);
  }
  static bool IsMapped(const ShadowPageState& page, int index) {
    return page.EntryAt(index).Load().IsPresent();
  }

  ShadowUnmap unmap_{Parts(), pages_.set(), pages_.links(), pages_.zap()};
};

TEST_F(ShadowUnmapTest, AllLeafsOfTheRangeGoAndOneFlushFollows) {
  ShadowPageState& small = Page(1, IndirectRole(1));
  ShadowPageState& alias = Page(2, IndirectRole(1));
  ShadowPageState& large = Page(3, IndirectRole(2));
  ShadowPageState& larger = Page(4, IndirectRole(3));
  for (int i = 0; i < 4; ++i) Map(small, i, 4 * k2MPages + 10 + i);
  Map(alias, 7, 4 * k2MPages + 11);
  Map(large, 0, 4 * k2MPages);
  Map(large, 1, 5 * k2MPages);
  Map(larger, 0, 0);
  Map(larger, 1, k1GPages);
  const uint64_t flushes = Flushes();
  int leafs_at_flush = -1;
  const FlushTrace trace([&](const TlbFlush&) {
    leafs_at_flush = static_cast<int>(counters_.Leafs(Level::k4K));
  });
  EXPECT_TRUE(ZapLeafs(GfnRange::Of(Gfn(4 * k2MPages + 11), 2)));
  EXPECT_EQ(Flushes(), flushes + 1);
  EXPECT_EQ(leafs_at_flush, 2) << "zapped first, then flushed";
  EXPECT_TRUE(IsMapped(small, 0));
  EXPECT_FALSE(IsMapped(small, 1));
  EXPECT_FALSE(IsMapped(small, 2));
  EXPECT_TRUE(IsMapped(small, 3));
  EXPECT_FALSE(IsMapped(alias, 7));
  EXPECT_FALSE(IsMapped(large, 0)) << "maps the range among others";
  EXPECT_TRUE(IsMapped(large, 1));
  EXPECT_FALSE(IsMapped(larger, 0));
  EXPECT_TRUE(IsMapped(larger, 1));
  EXPECT_FALSE(small.IsInvalid()) << "pages stay";

  EXPECT_FALSE(ZapLeafs(GfnRange::Of(Gfn(4 * k2MPages + 11), 2)));
  EXPECT_EQ(Flushes(), flushes + 1) << "nothing was there";
}

// Covers: TLB-06
TEST_F(ShadowUnmapTest, WhatWasZappedIsFlushedBeforeOthersHaveTheLock) {
  ShadowPageState& small = Page(1, IndirectRole(1));
  for (int i = 0; i < 4; ++i) Map(small, i, 1000 + i);
  const uint64_t flushes = Flushes();
  uint64_t leafs_seen = 0;
  uint64_t flushes_seen = 0;
  std::thread waiter([&] {
    MmuReadLocked read(mmu_lock_, LockOp::kAge);
    leafs_seen = counters_.Leafs(Level::k4K);
    flushes_seen = Flushes() - flushes;
  });
  while (!lock_.NeedYield()) std::this_thread::yield();
  EXPECT_TRUE(ZapLeafs(GfnRange::Of(Gfn(1000), 100)));
  WithoutLock([&] { waiter.join(); });
  EXPECT_EQ(leafs_seen, 3u);
  EXPECT_EQ(flushes_seen, 1u);
  EXPECT_EQ(Flushes(), flushes + 2) << "and the rest at the end";
  EXPECT_EQ(counters_.Leafs(Level::k4K), 0u);
}

// Covers: SHD-18
TEST_F(ShadowUnmapTest, WhoMustNotYieldKeepsTheLock) {
  ShadowPageState& small = Page(1, IndirectRole(1));
  for (int i = 0; i < 4; ++i) Map(small, i, 1000 + i);
  uint64_t leafs_seen = 99;
  std::thread waiter([&] {
    MmuReadLocked read(mmu_lock_, LockOp::kAge);
    leafs_seen = counters_.Leafs(Level::k4K);
  });
  while (!lock_.NeedYield()) std::this_thread::yield();
  EXPECT_TRUE(ZapLeafs(slot().range(), MayYield::kNo));
  WithoutLock([&] { waiter.join(); });
  EXPECT_EQ(leafs_seen, 0u);
}

// RACE-47: a split replaces a huge leaf by small ones while the walk yields.
// Covers: PF-27
TEST_F(ShadowUnmapTest, Race47WhatIsSplitInAGapOfTheWalkGoesToo) {
  ShadowPageState& small = Page(1, IndirectRole(1));
  ShadowPageState& large = Page(2, IndirectRole(2));
  ShadowPageState& child = Page(4 * k2MPages, DirectRole(1));
  Map(small, 0, 9 * k2MPages);
  Map(large, 0, 4 * k2MPages);
  SlotRmaps& rmaps = Rmaps(0);
  std::thread split([&] {
    MmuWriteLocked lock(mmu_lock_, LockOp::kSplit);
    if (!large.EntryAt(0).Load().IsPresent()) return;
    pages_.links().DropLeaf(lock, large.EntryAt(0));
    pages_.links().AddLeaf(lock, child.EntryAt(0), LeafTo(child, 4 * k2MPages),
                           {Gfn(4 * k2MPages), kAllRights}, rmaps,
                           caches_.lists, nullptr);
  });
  while (!lock_.NeedYield()) std::this_thread::yield();
  // When the walk over the small rmaps first yields, it has passed the rmaps of
  // the large page's gfns.
  ZapLeafs(GfnRange::Of(Gfn(4 * k2MPages), 6 * k2MPages));
  WithoutLock([&] { split.join(); });
  EXPECT_FALSE(IsMapped(large, 0));
  EXPECT_FALSE(IsMapped(child, 0));
  EXPECT_FALSE(IsMapped(small, 0));
}

TEST_F(ShadowUnmapTest, PagesOfGuestTablesInTheSlotGoWithIt) {
  constexpr uint64_t kOther = 3 * k1GPages;
  vm_.AddSlot(0, GfnRange::Of(Gfn(kOther), 64));
  ShadowPageState& table = Page(kOther + 1, IndirectRole(1));
  ShadowPageState& directory = Page(kOther + 2, IndirectRole(2));
  ShadowPageState& root = Page(kOther + 3, IndirectRole(4));
  ShadowPageState& elsewhere = Page(3, IndirectRole(3));
  ShadowPageState& direct = Page(kOther + 4, DirectRole(1));
  pages_.zap().GetRoot(lock_, root);
  Link(directory, 0, table);
  Link(elsewhere, 0, directory);
  Map(table, 5, 1000);
  const Memslot& other = *vm_.SlotOf(0, Gfn(kOther));
  EXPECT_TRUE(other.shadow_rmaps()->IsWriteTracked(Gfn(kOther + 2)));
  const uint64_t flushes = Flushes();

  unmap_.ZapGuestTables(lock_, other, nullptr);
  EXPECT_EQ(Flushes(), flushes + 1);
  EXPECT_EQ(pages_.in_use(), 3u) << "another slot's, the direct one, the root";
  EXPECT_TRUE(root.IsInvalid());
  EXPECT_FALSE(elsewhere.IsInvalid());
  EXPECT_FALSE(direct.IsInvalid()) << "stands for no table";
  EXPECT_FALSE(IsMapped(elsewhere, 0));
  EXPECT_EQ(RmapCount(1000), 0u);
  for (uint64_t gfn = kOther; gfn < kOther + 64; ++gfn) {
    EXPECT_FALSE(other.shadow_rmaps()->IsWriteTracked(Gfn(gfn)));
  }
  unmap_.ZapGuestTables(lock_, other, nullptr);
  EXPECT_EQ(Flushes(), flushes + 1) << "nothing was left";
  PutRoot(root);
}

TEST_F(ShadowUnmapTest, GuestTablesOfAnotherAddressSpaceStay) {
  vm_.AddSlot(1, GfnRange::Of(Gfn(0), 64));
  PageRole::Fields fields = IndirectRole(2).fields();
  fields.as_id = 1;
  ShadowPageState& one = Page(1, PageRole::Of(fields));
  ShadowPageState& zero = Page(1, IndirectRole(2));
  unmap_.ZapGuestTables(lock_, slot(), nullptr);
  EXPECT_EQ(pages_.in_use(), 1u);
  EXPECT_FALSE(one.IsInvalid());
  EXPECT_TRUE(zero.IsInvalid());
}

TEST_F(ShadowUnmapTest, ZappedTablesAreFreedBeforeOthersHaveTheLock) {
  // The zap has done the first chain when the waiter gets the lock.
  uint64_t first = 1;
  while (ShadowPageSet::ChainOf(Gfn(first)) != 0) ++first;
  Page(first, IndirectRole(2));
  Page(first + 1, IndirectRole(2));
  uint64_t left = 0;
  uint64_t flushes = 0;
  std::thread waiter([&] {
    MmuReadLocked read(mmu_lock_, LockOp::kAge);
    left = pages_.in_use();
    flushes = Flushes();
  });
  while (!lock_.NeedYield()) std::this_thread::yield();
  unmap_.ZapGuestTables(lock_, slot(), nullptr);
  WithoutLock([&] { waiter.join(); });
  EXPECT_EQ(left, 1u);
  EXPECT_EQ(flushes, 1u);
  EXPECT_EQ(Flushes(), 2u);
  EXPECT_EQ(pages_.in_use(), 0u);
}

}  // namespace
}  // namespace mmu
