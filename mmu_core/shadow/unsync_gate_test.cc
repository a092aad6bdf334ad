#include "mmu_core/shadow/unsync_gate.h"

#include <atomic>
#include <cstdint>
#include <thread>

#include "gtest/gtest.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/shadow/unsync_marks.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/shadow_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::DirectRole;
using ::mmu::testing::IndirectRole;
using ::mmu::testing::Interleaving;
using ::mmu::testing::NestedRole;
using ::mmu::testing::PassthroughRole;
using ::mmu::testing::ShadowFixture;

class UnsyncGateTest : public ::testing::Test, protected ShadowFixture {
 protected:
  const Memslot& Slot(uint64_t gfn) { return *vm_.SlotOf(0, Gfn(gfn)); }
  bool May(uint64_t gfn, Prefetched prefetched = Prefetched::kNo) {
    return gate_.MayMapWritable(lock_, Slot(gfn), Gfn(gfn), prefetched);
  }
  bool MayInSync(uint64_t gfn) {
    return gate_.MayMapWritableInSync(lock_, Slot(gfn), Gfn(gfn));
  }
  uint64_t Unsync() { return ShadowCounters::Get(stats().mmu_unsync); }

  UnsyncGate gate_{pages_.set(), pages_.unsync()};
};

// Covers: SHD-36
TEST_F(UnsyncGateTest, ATrackedGfnIsRefused) {
  Page(600, IndirectRole(1));
  ShadowPageState& upper = Page(600, IndirectRole(2));
  EXPECT_FALSE(May(600));
  EXPECT_EQ(Unsync(), 0u) << "the page table stays in step";
  Zap(upper);
  EXPECT_TRUE(May(600));
}

// Covers: SHD-36
TEST_F(UnsyncGateTest, AllPageTablesOfTheGfnBecomeUnsync) {
  ShadowPageState& one = Page(600, IndirectRole(1));
  ShadowPageState& two = Page(600, NestedRole(1));
  ShadowPageState& neighbour = Page(601, IndirectRole(1));
  EXPECT_TRUE(May(600));
  EXPECT_TRUE(one.unsync);
  EXPECT_TRUE(two.unsync);
  EXPECT_FALSE(neighbour.unsync);
  EXPECT_EQ(Unsync(), 2u);
  EXPECT_TRUE(May(600)) << "they are already";
  EXPECT_EQ(Unsync(), 2u);
}

TEST_F(UnsyncGateTest, PagesThatStandForNoTableDoNotMatter) {
  Page(600, DirectRole(1));
  Page(600, PassthroughRole());
  // Huge pages are disallowed now, so the gate must search.
  Page(601, IndirectRole(1));
  EXPECT_TRUE(May(600));
  EXPECT_TRUE(MayInSync(600));
  EXPECT_EQ(Unsync(), 0u);
}

TEST_F(UnsyncGateTest, TablesOfAnotherAddressSpaceDoNotMatter) {
  vm_.AddSlot(1, GfnRange::Of(Gfn(0), 1024));
  PageRole::Fields fields = IndirectRole(1).fields();
  fields.as_id = 1;
  ShadowPageState& smm = Page(600, PageRole::Of(fields));
  Page(601, IndirectRole(1));
  EXPECT_TRUE(May(600));
  EXPECT_FALSE(smm.unsync);
}

// Covers: SHD-36
TEST_F(UnsyncGateTest, APrefetchMakesNoPageUnsync) {
  ShadowPageState& page = Page(600, IndirectRole(1));
  EXPECT_FALSE(May(600, Prefetched::kYes));
  EXPECT_FALSE(page.unsync);
  MarkUnsync(page);
  EXPECT_TRUE(May(600, Prefetched::kYes));
}

// Covers: SHD-35
TEST_F(UnsyncGateTest, WhileAPageIsBroughtInStepNoneBecomesUnsync) {
  EXPECT_TRUE(MayInSync(600));
  ShadowPageState& page = Page(600, IndirectRole(1));
  EXPECT_FALSE(MayInSync(600));
  EXPECT_FALSE(page.unsync);
  MarkUnsync(page);
  EXPECT_FALSE(MayInSync(600));
}

// Where huge pages are allowed there can be no table, so the gate does not
// search for one. It misses even a page that should not be there.
TEST_F(UnsyncGateTest, WhereAHugePageMayBeNothingIsLookedFor) {
  ShadowPageState& page = Page(600, IndirectRole(1));
  Slot(600).lpage_info->Allow(Gfn(600));
  EXPECT_TRUE(May(600));
  EXPECT_FALSE(page.unsync);
  Slot(600).lpage_info->Disallow(Gfn(600));
}

// RACE-33 of mmu_core/LOCKING.md, F1 to F3: as soon as the SPTE allows writes,
// the root is marked as having an unsync child.
// Covers: SHD-37
TEST_F(UnsyncGateTest, Race33TheRootIsMarkedBeforeThePageIsUnsync) {
  ShadowPageState& root = Page(1, IndirectRole(2));
  ShadowPageState& page = Page(600, IndirectRole(1));
  Link(root, 3, page);
  bool may = false;
  WithoutLock([&] {
    Interleaving threads;
    threads.Add("fault", [&] {
      MmuReadLocked lock(mmu_lock_, LockOp::kFault);
      may = gate_.MayMapWritable(lock, Slot(600), Gfn(600), Prefetched::kNo);
    });
    threads.RunTo("fault", HookPoint::kMarksToUnsync);
    EXPECT_EQ(root.unsync_children, 1u);
    EXPECT_FALSE(page.unsync) << "or another fault would not wait for the mark";
    threads.RunTo("fault", HookPoint::kUnsyncToWritable);
    EXPECT_FALSE(may) << "nothing is writable yet";
    EXPECT_TRUE(page.unsync);
    threads.RunToEnd("fault");
  });
  EXPECT_TRUE(may);
}

// RACE-33, H1: two faults meet one synced page.
TEST_F(UnsyncGateTest, Race33TwoFaultsMakeThePageUnsyncOnce) {
  ShadowPageState& page = Page(600, IndirectRole(1));
  std::atomic<int> writable{0};
  WithoutLock([&] {
    const auto fault = [&] {
      MmuReadLocked lock(mmu_lock_, LockOp::kFault);
      writable +=
          gate_.MayMapWritable(lock, Slot(600), Gfn(600), Prefetched::kNo);
    };
    Interleaving threads;
    threads.Add("one", fault);
    threads.Add("two", fault);
    threads.RunTo("one", HookPoint::kMarksToUnsync);
    threads.Start("two");  // sees that the page is synced, and waits for "one"
    EXPECT_FALSE(threads.EndsSoon("two"));
    threads.RunToEnd("one");
    threads.WaitForEnd("two");
  });
  EXPECT_EQ(writable.load(), 2);
  EXPECT_TRUE(page.unsync);
  EXPECT_EQ(Unsync(), 1u);
}

// RACE-33 as a litmus test: G1 and G2 against two faults. The look at the SPTE
// is an acquire, so this is about the stores of the faults; the tests of
// ShadowRoots are about the loads.
// Covers: SHD-37
TEST_F(UnsyncGateTest, Race33WhoSeesAWritableSpteSeesTheRootsMark) {
  constexpr int kRounds = 1000;
  ShadowPageState& root = Page(1, IndirectRole(2));
  ShadowPageState& page = Page(600, IndirectRole(1));
  ShadowPageState& alias = Page(2, IndirectRole(1));
  Link(root, 3, page);
  const Memslot& slot = Slot(600);
  const Spte writable = LeafTo(alias, 600);
  int missed = 0;
  for (int round = 0; round < kRounds; ++round) {
    WithoutLock([&] {
      const auto fault = [&](int index) {
        MmuReadLocked lock(mmu_lock_, LockOp::kFault);
        if (gate_.MayMapWritable(lock, slot, Gfn(600), Prefetched::kNo)) {
          alias.EntryAt(index).Store(writable);
        }
      };
      std::thread one(fault, 0);
      std::thread two(fault, 1);
      for (int i = 0; !alias.EntryAt(0).Load().IsWritable() &&
                      !alias.EntryAt(1).Load().IsWritable();
           ++i) {
        if (i > 1000) std::this_thread::yield();
      }
      if (root.unsync_children.load(std::memory_order_relaxed) == 0) ++missed;
      one.join();
      two.join();
    });
    alias.EntryAt(0).Store(Spte::Initial());
    alias.EntryAt(1).Store(Spte::Initial());
    pages_.unsync().ClearUnsync(lock_, page);
    UnsyncBatch none;
    pages_.unsync().Collect(lock_, root, none);
    ASSERT_EQ(root.unsync_children, 0u);
  }
  EXPECT_EQ(missed, 0);
}

}  // namespace
}  // namespace mmu
