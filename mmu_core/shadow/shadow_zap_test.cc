#include "mmu_core/shadow/shadow_zap.h"

#include <cstdint>
#include <thread>
#include <vector>

#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/flush_trace.h"
#include "mmu_core/testing/lock_waiters.h"
#include "mmu_core/testing/shadow_test_util.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/tlb/vcpu_gate.h"

namespace mmu {
namespace {

using ::mmu::testing::FlushTrace;
using ::mmu::testing::IndirectRole;
using ::mmu::testing::NestedRole;
using ::mmu::testing::PassthroughRole;
using ::mmu::testing::ShadowFixture;

class ShadowZapTest : public ::testing::Test, protected ShadowFixture {
 protected:
  explicit ShadowZapTest(TdpEnabled tdp = TdpEnabled::kNo)
      : ShadowFixture(tdp) {
    tlb_.AddVcpu(&gate_);
  }
  ~ShadowZapTest() override { tlb_.RemoveVcpu(&gate_); }
  bool AskedToFreeRoots() {
    return (gate_.TakeRequests() & kFreeObsoleteRoots) != 0;
  }
  uint64_t Zapped() { return ShadowCounters::Get(stats().mmu_shadow_zapped); }
  bool IsEmpty(const ShadowPageState& page) {
    for (int i = 0; i < kEntriesPerTable; ++i) {
      if (page.EntryAt(i).Load() != Spte::Initial()) return false;
    }
    return true;
  }

  VcpuGate gate_;
};

class NestedZapTest : public ShadowZapTest {
 protected:
  NestedZapTest() : ShadowZapTest(TdpEnabled::kYes) {}
};

// Covers: SHD-20, STAT-03
TEST_F(ShadowZapTest, AZappedPageIsTakenOutOfEverything) {
  ShadowPageState& root = Page(1, IndirectRole(3));
  ShadowPageState& page = Page(2, IndirectRole(2));
  ShadowPageState& child = Page(3, IndirectRole(1));
  ShadowPageState& alias = Page(4, IndirectRole(3));
  Link(root, 1, page);
  Link(alias, 2, page);
  Link(page, 3, child);
  Map(page, 4, 512);
  page.EntryAt(5).Store(Spte(0x1234));  // neither present nor initial
  EXPECT_EQ(Rmaps(2).WriteTrackers(Gfn(2)), 1);

  ZappedPages zapped;
  const ZapOutcome outcome = pages_.zap().Prepare(lock_, page, zapped);
  EXPECT_EQ(outcome.pages, 1u);
  EXPECT_FALSE(outcome.others);
  EXPECT_EQ(Zapped(), 1u);
  EXPECT_EQ(pages_.in_use(), 3u);
  EXPECT_EQ(root.EntryAt(1).Load(), Spte::Initial());
  EXPECT_EQ(alias.EntryAt(2).Load(), Spte::Initial());
  EXPECT_TRUE(child.parents.empty());
  EXPECT_TRUE(IsEmpty(page));
  EXPECT_EQ(RmapCount(512, Level::k2M), 0u);
  EXPECT_EQ(counters_.Leafs(Level::k2M), 0u);
  EXPECT_EQ(Rmaps(2).WriteTrackers(Gfn(2)), 0);
  EXPECT_TRUE(page.IsInvalid());
  EXPECT_FALSE(AskedToFreeRoots());
  pages_.zap().Commit(lock_, zapped, nullptr);

  // The child of a legacy guest stays, so that it can be found again.
  EXPECT_EQ(&Page(3, IndirectRole(1)), &child);
}

// Covers: SHD-20, SHD-23
TEST_F(ShadowZapTest, UnsyncPagesBelowGoTooAndTheCallerIsTold) {
  ShadowPageState& root = Page(1, IndirectRole(3));
  ShadowPageState& directory = Page(2, IndirectRole(2));
  Link(root, 0, directory);
  for (uint64_t i = 0; i < 20; ++i) {
    ShadowPageState& table = Page(100 + i, IndirectRole(1));
    Link(directory, static_cast<int>(i), table);
    if (i < 18) MarkUnsync(table);
  }
  const ZapOutcome outcome = Zap(root);
  EXPECT_EQ(outcome.pages, 19u);
  EXPECT_TRUE(outcome.others);
  EXPECT_EQ(Zapped(), 19u);
  EXPECT_EQ(ShadowCounters::Get(stats().mmu_unsync), 0u);
  EXPECT_FALSE(directory.IsInvalid());
  EXPECT_EQ(pages_.in_use(), 3u);
  EXPECT_TRUE(Get(100, IndirectRole(1)).created);
  EXPECT_FALSE(Get(119, IndirectRole(1)).created);
}

// The next page of the list goes with its parent.
// Covers: SHD-23, STAT-10
TEST_F(ShadowZapTest, AWalkOverTheOldestPagesBeginsAgainAfterOthersWent) {
  ShadowPageState& directory = Page(2, IndirectRole(2));
  ShadowPageState& table = Page(3, IndirectRole(1));
  Page(4, IndirectRole(1));
  Link(directory, 0, table);
  MarkUnsync(table);
  EXPECT_EQ(ShadowCounters::Get(stats().mmu_shadow_pages), 3u);
  EXPECT_EQ(pages_.zap().ZapOldest(lock_, 3, nullptr), 3u);
  EXPECT_EQ(Zapped(), 3u);
  EXPECT_EQ(pages_.in_use(), 0u);
  EXPECT_EQ(ShadowCounters::Get(stats().mmu_shadow_pages), 0u);
}

// Covers: SHD-20, SHD-05, ROLE-10
TEST_F(ShadowZapTest, ARootInUseIsFreedWhenItsLastUserLeaves) {
  ShadowPageState& root = Page(1, IndirectRole(4));
  pages_.zap().GetRoot(lock_, root);
  pages_.zap().GetRoot(lock_, root);
  EXPECT_EQ(Zap(root).pages, 0u);
  EXPECT_TRUE(root.IsInvalid());
  EXPECT_TRUE(pages_.set().IsObsolete(root)) << "in its own generation, too";
  EXPECT_EQ(gate_.TakeRequests(), kFreeObsoleteRoots | kTlbFlush);
  EXPECT_EQ(pages_.in_use(), 1u) << "still counted";
  EXPECT_EQ(pages_.set().active().oldest(), nullptr);

  PutRoot(root);
  WaitForFrees();
  EXPECT_EQ(TablesInUse(), 1);
  PutRoot(root);
  EXPECT_EQ(pages_.in_use(), 0u);
  WaitForFrees();
  EXPECT_EQ(TablesInUse(), 0);
}

// Covers: SHD-22
TEST_F(ShadowZapTest, PagesAreFreedAfterOneFlushThatTheyAllWaitFor) {
  std::vector<ShadowPageState*> pages;
  for (uint64_t gfn = 1; gfn <= 3; ++gfn) {
    pages.push_back(&Page(gfn, IndirectRole(1)));
  }
  const uint64_t flushes = Flushes();
  int there_at_flush = 0;
  absl::optional<FlushTrace> trace;
  trace.emplace([&](const TlbFlush&) {
    WaitForFrees();
    there_at_flush = TablesInUse();
    for (uint64_t gfn = 1; gfn <= 3; ++gfn) {
      EXPECT_EQ(pages_.set().FirstInChain(Gfn(gfn)), pages[gfn - 1]);
    }
  });
  ZappedPages zapped;
  for (ShadowPageState* page : pages) {
    pages_.zap().Prepare(lock_, *page, zapped);
  }
  EXPECT_EQ(Flushes(), flushes);
  pages_.zap().Commit(lock_, zapped, nullptr);
  trace.reset();
  EXPECT_EQ(there_at_flush, 3);
  EXPECT_EQ(Flushes(), flushes + 1);
  WaitForFrees();
  EXPECT_EQ(TablesInUse(), 0);

  pages_.zap().Commit(lock_, zapped, nullptr);
  EXPECT_EQ(Flushes(), flushes + 1) << "nothing was zapped";
}

// Covers: SHD-22
TEST_F(ShadowZapTest, AReaderWithoutALockKeepsTheTableItLooksAt) {
  ShadowPageState& page = Page(1, IndirectRole(1));
  {
    RcuReadGuard rcu;
    Zap(page);
    EXPECT_EQ(page.EntryAt(0).Load(), Spte::Initial());
    EXPECT_EQ(TablesInUse(), 1);
  }
  WaitForFrees();
  EXPECT_EQ(TablesInUse(), 0);
}

// Covers: SHD-21
TEST_F(NestedZapTest, PagesOfANestedGuestGoWithTheirLastParent) {
  ShadowPageState& root = Page(1, NestedRole(4));
  ShadowPageState& alias = Page(2, NestedRole(4));
  ShadowPageState& upper = Page(3, NestedRole(3));
  ShadowPageState& shared = Page(4, NestedRole(3));
  ShadowPageState& lower = Page(5, NestedRole(2));
  ShadowPageState& other_root = Page(6, NestedRole(3));
  Link(root, 0, upper);
  Link(root, 1, shared);
  Link(alias, 1, shared);
  Link(upper, 0, lower);
  Link(root, 2, other_root);
  Map(lower, 0, 512);
  pages_.zap().GetRoot(lock_, other_root);

  const ZapOutcome outcome = Zap(root);
  EXPECT_EQ(outcome.pages, 3u) << "root, upper, lower";
  EXPECT_TRUE(outcome.others);
  EXPECT_EQ(counters_.Leafs(Level::k2M), 0u);
  EXPECT_FALSE(shared.IsInvalid());
  EXPECT_FALSE(other_root.IsInvalid());
  EXPECT_EQ(pages_.in_use(), 3u);
  PutRoot(other_root);
}

// Covers: SHD-27
TEST_F(NestedZapTest, WhoZapsTheOldestCountsTheChildrenThatGoWithThem) {
  ShadowPageState& used = Page(1, NestedRole(4));
  pages_.zap().GetRoot(lock_, used);
  ShadowPageState& parent = Page(2, NestedRole(3));
  for (int i = 0; i < 5; ++i) {
    Link(parent, i, Page(10 + static_cast<uint64_t>(i), NestedRole(2)));
  }
  ShadowPageState& next = Page(20, NestedRole(2));
  ShadowPageState& newest = Page(21, NestedRole(2));
  EXPECT_EQ(pages_.zap().ZapOldest(lock_, 6, nullptr), 6u)
      << "the parent and five children";
  EXPECT_FALSE(used.IsInvalid());
  EXPECT_FALSE(next.IsInvalid());
  EXPECT_EQ(pages_.in_use(), 3u);
  EXPECT_EQ(pages_.zap().ZapOldest(lock_, 1, nullptr), 1u);
  EXPECT_EQ(&Page(21, NestedRole(2)), &newest) << "the other one was older";
  EXPECT_EQ(pages_.in_use(), 2u);
  EXPECT_EQ(pages_.zap().ZapOldest(lock_, 2, nullptr), 1u)
      << "all others are in use";
  EXPECT_FALSE(used.IsInvalid());
  PutRoot(used);
}

// Covers: SHD-21
TEST_F(ShadowZapTest, WithoutTdpANestedGuestsPagesStayTooToBeFoundAgain) {
  ShadowPageState& root = Page(1, NestedRole(4));
  ShadowPageState& child = Page(3, NestedRole(3));
  Link(root, 0, child);
  EXPECT_EQ(Zap(root).pages, 1u);
  EXPECT_FALSE(child.IsInvalid());
}

// Covers: ROLE-36
TEST_F(NestedZapTest, APassthroughPageLosesItsChildLikeAnyParent) {
  ShadowPageState& top = Page(1, PassthroughRole());
  ShadowPageState& root = Page(1, NestedRole(4));
  Link(top, 0, root);
  Zap(root);
  EXPECT_EQ(top.EntryAt(0).Load(), Spte::Initial());
  EXPECT_FALSE(top.IsInvalid());
}

// Covers: SHD-24
TEST_F(ShadowZapTest, AWholeVmIsZappedByItsGeneration) {
  ShadowPageState& root = Page(1, IndirectRole(4));
  pages_.zap().GetRoot(lock_, root);
  for (uint64_t gfn = 10; gfn < 40; ++gfn) Page(gfn, IndirectRole(1));
  pages_.zap().StartGeneration(lock_);
  ShadowPageState& fresh = Page(10, IndirectRole(1));
  const uint64_t flushes = Flushes();
  pages_.zap().ZapObsolete(lock_, nullptr);
  EXPECT_EQ(Flushes(), flushes + 1);
  EXPECT_EQ(pages_.in_use(), 2u) << "the root and the new page";
  EXPECT_FALSE(fresh.IsInvalid());
  EXPECT_TRUE(root.IsInvalid());
  EXPECT_FALSE(AskedToFreeRoots()) << "vCPUs were asked before";
  PutRoot(root);

  // The generation bit has its first value again.
  pages_.zap().StartGeneration(lock_);
  pages_.zap().ZapObsolete(lock_, nullptr);
  EXPECT_EQ(pages_.in_use(), 0u);
}

// Covers: SHD-24
TEST_F(ShadowZapTest, ALongZapLetsThoseWhoWaitHaveTheLock) {
  for (uint64_t gfn = 10; gfn < 40; ++gfn) Page(gfn, IndirectRole(1));
  pages_.zap().StartGeneration(lock_);
  uint64_t left = 0;
  std::thread waiter([&] {
    MmuReadLocked read(mmu_lock_, LockOp::kAge);
    left = pages_.in_use();
  });
  while (!lock_.NeedYield()) std::this_thread::yield();
  pages_.zap().ZapObsolete(lock_, nullptr);
  WithoutLock([&] { waiter.join(); });
  EXPECT_EQ(left, 30 - ShadowZap::kBatch);
  EXPECT_EQ(pages_.in_use(), 0u);
}

// Covers: SHD-24
TEST_F(ShadowZapTest, AZapGoesOnWhileOthersAlwaysWait) {
  for (uint64_t gfn = 10; gfn < 40; ++gfn) Page(gfn, IndirectRole(1));
  pages_.zap().StartGeneration(lock_);
  testing::LockWaiters waiters(mmu_lock_, /*most=*/100);
  waiters.Add();
  pages_.zap().ZapObsolete(lock_, nullptr);
  EXPECT_EQ(waiters.trace().CountOf(HookPoint::kYield), 2)
      << "one for each batch";
  EXPECT_EQ(pages_.in_use(), 0u);
  WithoutLock([&] { waiters.Join(); });
}

using ShadowZapDeathTest = ShadowZapTest;

TEST_F(ShadowZapDeathTest, AGenerationCannotStartBeforeTheOneBeforeIsGone) {
  Page(1, IndirectRole(1));
  pages_.zap().StartGeneration(lock_);
  EXPECT_DEATH(pages_.zap().StartGeneration(lock_), "generation");
  pages_.zap().ZapObsolete(lock_, nullptr);
}

TEST_F(ShadowZapDeathTest, ZappedPagesMustBeCommitted) {
  EXPECT_DEATH(
      {
        ZappedPages zapped;
        pages_.zap().Prepare(lock_, Page(1, IndirectRole(1)), zapped);
      },
      "empty");
}

TEST_F(ShadowZapTest, AnEntryIsEmptiedWhateverItIs) {
  ShadowPageState& page = Page(1, IndirectRole(2));
  ShadowPageState& child = Page(2, IndirectRole(1));
  Link(page, 0, child);
  Map(page, 1, 512);
  page.EntryAt(2).Store(Spte(0x1234));
  ZappedPages zapped;
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(pages_.zap().ZapSpte(lock_, page.EntryAt(i), zapped), 0u);
  }
  EXPECT_TRUE(IsEmpty(page));
  EXPECT_TRUE(zapped.empty());
}

}  // namespace
}  // namespace mmu
