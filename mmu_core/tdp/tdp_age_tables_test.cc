// Ageing by the Accessed bits of the entries above tables of small pages.

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/mmu/page_fault.h"
#include "mmu_core/paging/known_leaf_count.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"
#include "mmu_core/tdp/tdp_root.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::EntryOf;
using ::mmu::testing::FaultOn;
using ::mmu::testing::Interleaving;
using ::mmu::testing::k2MPages;
using ::mmu::testing::kMiB;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::MapInto;
using ::mmu::testing::PagesOf;
using ::mmu::testing::Read;
using ::mmu::testing::Recover;
using ::mmu::testing::Slot;
using ::mmu::testing::Split;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::mmu::testing::ZapLeafs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kUnknown = -1;

// A VM with memory for two tables of small pages. Pages 3 to 7 are mapped,
// were aged and are in no TLB.
class TdpAgeTablesTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kPages = 2 * k2MPages;

  TdpAgeTablesTest() : vm_(MakeVm({Slot(0, 0, 4 * kMiB)})) {
    Touch(*vm_, GfnRange::Of(Gfn(3), 5));
    EXPECT_THAT(Young(), ElementsAre(3, 4, 5, 6, 7));
    FlushAll();
  }

  AgeResult Age(GfnRange range, AgeMode mode = AgeMode::kTestAndClear,
                AgeScan scan = AgeScan::kWalkedTables,
                MmuCost* cost = nullptr) {
    AgeResult result = AgeResult::For(range);
    vm_->state().tdp.Age(0, range, mode, scan, result, cost);
    EXPECT_EQ(PagesOf(result.young).size(), result.young_page_count);
    return result;
  }
  AgeResult Age(AgeMode mode = AgeMode::kTestAndClear,
                AgeScan scan = AgeScan::kWalkedTables) {
    return Age(GfnRange::Of(Gfn(0), kPages), mode, scan);
  }
  std::vector<uint64_t> Young() { return PagesOf(Age().young); }
  // The pages that an ageing calls old. Checks that a look at all leafs calls
  // as many old, and that no page is young.
  uint64_t Old() {
    const AgeResult all = Age(AgeMode::kTest, AgeScan::kAllLeafs);
    const AgeResult tested = Age(AgeMode::kTest);
    const AgeResult aged = Age();
    EXPECT_EQ(all.young_page_count, 0u);
    EXPECT_EQ(tested.young_page_count, 0u);
    EXPECT_EQ(aged.young_page_count, 0u);
    EXPECT_EQ(tested.old_page_count, all.old_page_count);
    EXPECT_EQ(aged.old_page_count, all.old_page_count);
    return aged.old_page_count;
  }

  const SpteFormat& format() const { return vm_->state().tdp.format(); }
  // The entry that points at the table of the first pages.
  SpteSlot& Parent() { return EntryOf(*vm_, Gfn(0), Level::k2M); }
  SpteSlot& Leaf(uint64_t gfn) { return EntryOf(*vm_, Gfn(gfn), Level::k4K); }
  bool WasWalked() { return format().IsAccessed(Parent().Load()); }
  int Count() {
    return TablePool::DescriptorOf(TableOf(Parent().Load()))
        ->leaf_count.KnownOr(kUnknown);
  }
  void FlushAll() { vm_->state().vcpus[0]->tlb().FlushAll(); }
  void ReadPage(uint64_t gfn) { Read(*vm_, gfn * kPageSize); }
  void Zap(uint64_t gfn) { ZapLeafs(*vm_, GfnRange::Of(Gfn(gfn), 1)); }
  void SetAccessed(uint64_t gfn) {
    Leaf(gfn).FetchOr(format().accessed_mask());
  }
  // Maps a page as for an access that may come.
  void Prefetch(uint64_t gfn) {
    TableCache cache(vm_->state().pool);
    PageFault fault = FaultOn(*vm_, Gfn(gfn), AccessKind::kRead);
    fault.prefetched = Prefetched::kYes;
    const RootRef root = vm_->state().tdp.LoadRoot(0, cache).value();
    ASSERT_EQ(MapInto(*vm_, *root, fault, cache), FaultResult::kFixed);
  }

  std::unique_ptr<Vm> vm_;
};

// Covers: AGE-13
TEST_F(TdpAgeTablesTest, ATableThatNoWalkHasPassedIsNotRead) {
  EXPECT_FALSE(WasWalked());
  EXPECT_EQ(Count(), 5);
  // No processor does this. It shows who reads the leafs.
  SetAccessed(4);
  MmuCost cost;
  AgeResult aged = Age(GfnRange::Of(Gfn(0), kPages), AgeMode::kTestAndClear,
                       AgeScan::kWalkedTables, &cost);
  EXPECT_EQ(aged.young_page_count, 0u);
  EXPECT_EQ(aged.old_page_count, 5u);
  EXPECT_LT(cost.sptes_visited_count, 10);

  aged = Age(AgeMode::kTestAndClear, AgeScan::kAllLeafs);
  EXPECT_THAT(PagesOf(aged.young), ElementsAre(4));
  EXPECT_EQ(aged.old_page_count, 4u);
}

// Covers: AGE-13
TEST_F(TdpAgeTablesTest, AWalkMakesTheNextAgeingReadTheTable) {
  ReadPage(4);
  EXPECT_TRUE(WasWalked());
  EXPECT_THAT(Young(), ElementsAre(4));
  EXPECT_FALSE(WasWalked());
  EXPECT_EQ(Old(), 5u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: AGE-13
TEST_F(TdpAgeTablesTest, TestingWritesNothingAndReadsOnlyWalkedTables) {
  SetAccessed(4);
  AgeResult aged = Age(AgeMode::kTest);
  EXPECT_EQ(aged.young_page_count, 0u) << "not read";
  EXPECT_EQ(aged.old_page_count, 5u);
  ReadPage(6);
  for (int i = 0; i < 2; ++i) {
    aged = Age(AgeMode::kTest);
    EXPECT_THAT(PagesOf(aged.young), ElementsAre(4, 6));
    EXPECT_EQ(aged.old_page_count, 3u);
    EXPECT_TRUE(WasWalked());
    EXPECT_EQ(Count(), 5) << "of the ageing before";
  }
}

// Covers: AGE-13
TEST_F(TdpAgeTablesTest, APartOfATableIsReadAndLeavesTheEntryAboveAlone) {
  ReadPage(4);
  Zap(7);
  for (const GfnRange part : {GfnRange::Of(Gfn(1), k2MPages - 1),
                              GfnRange::Of(Gfn(0), k2MPages - 1)}) {
    SetAccessed(5);
    const AgeResult aged = Age(part);
    EXPECT_EQ(aged.young_page_count + aged.old_page_count, 4u);
    EXPECT_FALSE(format().IsAccessed(Leaf(5).Load()));
    EXPECT_TRUE(WasWalked());
    EXPECT_EQ(Count(), kUnknown);
  }
  SetAccessed(5);
  EXPECT_THAT(Young(), ElementsAre(5)) << "the walk of page 4 is still noted";
  SetAccessed(5);
  EXPECT_EQ(Age(GfnRange::Of(Gfn(1), k2MPages)).young_page_count, 1u)
      << "a part is read, whatever the entry above says";
}

// Covers: AGE-11
TEST_F(TdpAgeTablesTest, ABitmapOfMappedPagesIsMadeFromTheLeafs) {
  ReadPage(4);
  AgeResult aged = AgeResult::For(GfnRange::Of(Gfn(0), kPages));
  aged.mapped.resize(aged.young.size());
  vm_->state().tdp.Age(0, GfnRange::Of(Gfn(0), kPages), AgeMode::kTestAndClear,
                       AgeScan::kWalkedTables, aged, nullptr);
  EXPECT_THAT(PagesOf(aged.young), ElementsAre(4));
  EXPECT_THAT(PagesOf(aged.mapped), ElementsAre(3, 4, 5, 6, 7));
  EXPECT_TRUE(WasWalked()) << "kept for the MMU's next ageing of its own";
}

// Covers: AGE-15
TEST_F(TdpAgeTablesTest, WithoutAccessedBitsAllLeafsAreRead) {
  VmConfig config;
  config.ad_bits = VmConfig::AdBits::kOff;
  config.memslots = {Slot(0, 0, 4 * kMiB)};
  vm_ = MakeVmFrom(config);
  Touch(*vm_, GfnRange::Of(Gfn(3), 5));
  const Spte parent = Parent().Load();
  EXPECT_THAT(Young(), ElementsAre(3, 4, 5, 6, 7));
  FlushAll();
  ReadPage(4);
  EXPECT_THAT(Young(), ElementsAre(4));
  EXPECT_EQ(Old(), 5u);
  EXPECT_EQ(Parent().Load(), parent);
  EXPECT_EQ(Count(), kUnknown);
}

// --- The number of old pages ---

TEST_F(TdpAgeTablesTest, AZappedPageIsNotCounted) {
  Zap(4);
  EXPECT_EQ(Count(), kUnknown);
  EXPECT_FALSE(WasWalked());
  EXPECT_EQ(Old(), 4u);
  EXPECT_EQ(Count(), 4);
  // A leaf that every access has used is removed in another way.
  ReadPage(3);
  Write(*vm_, 3 * kPageSize);
  Zap(3);
  EXPECT_EQ(Count(), kUnknown);
  EXPECT_EQ(Old(), 3u);
}

// Covers: SPTE-11
TEST_F(TdpAgeTablesTest, APrefetchedPageIsCounted) {
  Prefetch(100);
  EXPECT_FALSE(WasWalked()) << "a walk of the MMU's own";
  EXPECT_EQ(Count(), kUnknown);
  EXPECT_EQ(Old(), 6u);
  EXPECT_EQ(Count(), 6);
}

TEST_F(TdpAgeTablesTest, APageThatAFaultMapsIsYoungAndThenCounted) {
  Write(*vm_, 100 * kPageSize);
  EXPECT_EQ(Count(), kUnknown);
  EXPECT_THAT(Young(), ElementsAre(100));
  EXPECT_EQ(Old(), 6u);
}

// A recovery removes tables with all their leafs, and a split fills tables from
// the pool. No change of a single leaf makes their numbers unknown.
TEST_F(TdpAgeTablesTest, TheNumberOfAFormerTableIsForgotten) {
  constexpr int kTables = 8;
  const GfnRange all = GfnRange::Of(Gfn(0), kTables * k2MPages);
  vm_ = MakeVm({Slot(0, 0, kTables * 2 * kMiB, Level::k2M)});
  Touch(*vm_, all);
  Split(*vm_, all);
  for (int i = 0; i < kTables; ++i) Zap(i * k2MPages);
  Age(all);
  EXPECT_EQ(Count(), 511);
  EXPECT_EQ(Recover(*vm_, all).to_2m_count, kTables);
  EXPECT_EQ(Age(all).old_page_count, all.pages());
  RcuBarrier();  // the former tables are in the pool
  Split(*vm_, all);
  EXPECT_EQ(Count(), kUnknown);
  EXPECT_EQ(AuditFindings(*vm_), "");

  // An ageing comes when another has cleared Accessed above a table and has not
  // yet begun to count its leafs.
  AgeResult aged;
  Interleaving threads;
  threads.Add("age", [&] { aged = Age(all); });
  for (int i = 0; i < kTables; ++i) {
    threads.RunTo("age", HookPoint::kClearToToken);
    EXPECT_EQ(Age(all, AgeMode::kTest).old_page_count, all.pages());
  }
  threads.RunToEnd("age");
  EXPECT_EQ(aged.old_page_count, all.pages());
}

// Covers: TDP-52
TEST_F(TdpAgeTablesTest, PagesOfASplitAndOfARecoveryAreCounted) {
  vm_ = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Touch(*vm_, GfnRange::Of(Gfn(0), kPages));
  Age();
  FlushAll();
  Split(*vm_, GfnRange::Of(Gfn(0), k2MPages));
  EXPECT_TRUE(WasWalked()) << "as a new table is";
  EXPECT_EQ(Count(), kUnknown);
  EXPECT_EQ(Old(), 1024u);
  EXPECT_EQ(Count(), 512);
  EXPECT_EQ(Old(), 1024u);
  // An ageing changes the entry while a recovery replaces it.
  EXPECT_EQ(Recover(*vm_, GfnRange::Of(Gfn(0), kPages)).to_2m_count, 1u);
  EXPECT_EQ(Old(), 1024u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

TEST_F(TdpAgeTablesTest, TheAuditorFindsANumberThatIsWrong) {
  EXPECT_EQ(AuditFindings(*vm_), "");
  KnownLeafCount& count =
      TablePool::DescriptorOf(TableOf(Parent().Load()))->leaf_count;
  LeafCountTokens tokens;
  const KnownLeafCount::Token token = tokens.Next();
  count.BeginCount(token);
  count.EndCount(token, 6);
  EXPECT_THAT(AuditFindings(*vm_), HasSubstr("known to have 6 leafs, not 5"));
  count.Forget();
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// --- Walks ---

TEST_F(TdpAgeTablesTest, AWalkSetsAccessedInEachEntryThatItPasses) {
  for (const Level level : {Level::k2M, Level::k1G, Level::k512G}) {
    EntryOf(*vm_, Gfn(0), level).FetchAnd(~format().accessed_mask());
  }
  ReadPage(4);
  for (const Level level : {Level::k2M, Level::k1G, Level::k512G}) {
    EXPECT_TRUE(format().IsAccessed(EntryOf(*vm_, Gfn(0), level).Load()));
  }
}

// The processor begins a walk at a pointer that it has cached.
// Covers: AGE-16
TEST_F(TdpAgeTablesTest, APageThatIsReachedByACachedPointerLooksIdle) {
  ReadPage(3);
  EXPECT_THAT(Young(), ElementsAre(3));
  ReadPage(4);
  EXPECT_TRUE(format().IsAccessed(Leaf(4).Load()));
  EXPECT_FALSE(WasWalked());
  EXPECT_THAT(Young(), IsEmpty()) << "a false negative";
  FlushAll();
  ReadPage(3);
  EXPECT_THAT(Young(), ElementsAre(3, 4));
  EXPECT_EQ(Old(), 5u) << "never a false positive";
}

// --- RACE-55, forced ---

TEST_F(TdpAgeTablesTest,
       Race55AWalkThatPassedTheEntryBeforeTheClearIsSeenLate) {
  Interleaving threads;
  threads.Add("vcpu", [&] { ReadPage(4); });
  threads.RunTo("vcpu", HookPoint::kWalkToTable, 3);
  EXPECT_TRUE(WasWalked());
  EXPECT_THAT(Young(), IsEmpty());
  threads.RunToEnd("vcpu");
  AgeResult aged = Age();
  EXPECT_THAT(PagesOf(aged.young), IsEmpty()) << "one round late";
  EXPECT_EQ(aged.old_page_count, 5u);
  FlushAll();
  ReadPage(5);
  EXPECT_THAT(Young(), ElementsAre(4, 5));
}

// The walk comes after the ageing has read the entry, and before it has cleared
// Accessed there.
TEST_F(TdpAgeTablesTest, Race55AWalkBeforeTheClearIsSeen) {
  ReadPage(3);
  FlushAll();
  std::vector<uint64_t> first;
  Interleaving threads;
  threads.Add("age", [&] { first = Young(); });
  threads.RunTo("age", HookPoint::kParentToClear);
  ReadPage(4);
  threads.RunToEnd("age");
  std::vector<uint64_t> seen = Young();
  seen.insert(seen.end(), first.begin(), first.end());
  EXPECT_THAT(seen, ::testing::UnorderedElementsAre(3, 4));
}

// Also in the midst of the leafs, when the ageing has read the walk's leaf but
// not all others. Accessed that goes only after them would take the walk's note
// with it.
TEST_F(TdpAgeTablesTest, Race55AWalkAfterTheClearIsSeen) {
  for (const HookPoint point :
       {HookPoint::kClearToToken, HookPoint::kTokenToScan,
        HookPoint::kAgeToExchange, HookPoint::kScanToCount}) {
    SCOPED_TRACE(static_cast<int>(point));
    ReadPage(5);
    FlushAll();
    std::vector<uint64_t> first;
    {
      Interleaving threads;
      threads.Add("age", [&] { first = Young(); });
      threads.RunTo("age", point);
      ReadPage(4);
      EXPECT_TRUE(WasWalked());
      threads.RunToEnd("age");
    }
    std::vector<uint64_t> seen = Young();
    seen.insert(seen.end(), first.begin(), first.end());
    EXPECT_THAT(seen, ::testing::UnorderedElementsAre(4, 5));
    EXPECT_EQ(Old(), 5u);
    FlushAll();
  }
}

// The ageing has read the leafs, with the page.
TEST_F(TdpAgeTablesTest, Race55AZapBetweenTokenAndNumberKeepsTheNumberOut) {
  ReadPage(3);
  Interleaving threads;
  threads.Add("age", [&] { EXPECT_EQ(Age().old_page_count, 4u); });
  threads.RunTo("age", HookPoint::kScanToCount);
  Zap(5);
  threads.RunToEnd("age");
  EXPECT_EQ(Count(), kUnknown);
  EXPECT_EQ(Old(), 4u);
}

// The zap has removed the page, but not the number; the ageing counts without
// the page.
TEST_F(TdpAgeTablesTest, Race55AnAgeingWithinAZapKeepsNoNumber) {
  Interleaving threads;
  threads.Add("zap", [&] { Zap(5); });
  threads.RunTo("zap", HookPoint::kLeafToForget);
  EXPECT_EQ(Count(), 5) << "wrong for the moment";
  ReadPage(3);
  EXPECT_THAT(Young(), ElementsAre(3));
  EXPECT_EQ(Count(), 4);
  threads.RunToEnd("zap");
  EXPECT_EQ(Count(), kUnknown);
  EXPECT_EQ(Old(), 4u);
}

// The ageing has read the leafs, without the page.
TEST_F(TdpAgeTablesTest, Race55AFaultBetweenTokenAndNumberKeepsTheNumberOut) {
  ReadPage(3);
  FlushAll();
  Interleaving threads;
  threads.Add("age", [&] { EXPECT_EQ(Age().old_page_count, 4u); });
  threads.RunTo("age", HookPoint::kScanToCount);
  std::thread([&] { Prefetch(100); }).join();
  threads.RunToEnd("age");
  EXPECT_FALSE(WasWalked());
  EXPECT_EQ(Count(), kUnknown);
  EXPECT_EQ(Old(), 6u);
}

TEST_F(TdpAgeTablesTest, Race55TheNumberOfAnEarlierAgeingStaysOut) {
  ReadPage(3);
  Interleaving threads;
  threads.Add("early", [&] { Age(); });
  threads.Add("late", [&] { Age(); });
  threads.RunTo("early", HookPoint::kScanToCount);
  Zap(5);
  threads.RunTo("late", HookPoint::kTokenToScan);
  threads.RunToEnd("early");
  EXPECT_EQ(Count(), kUnknown) << "the later one is counting";
  threads.RunToEnd("late");
  EXPECT_EQ(Count(), 4);
}

TEST_F(TdpAgeTablesTest, Race55ANumberIsNotReplacedByAnOlderOne) {
  ReadPage(3);
  Interleaving threads;
  threads.Add("early", [&] { Age(); });
  threads.RunTo("early", HookPoint::kScanToCount);
  Zap(5);
  EXPECT_EQ(Old(), 4u);
  threads.RunToEnd("early");
  EXPECT_EQ(Count(), 4);
}

// Both have read the entry with Accessed.
TEST_F(TdpAgeTablesTest, Race55OfTwoAgeingsOneClearsAndBothReadTheLeafs) {
  ReadPage(3);
  AgeResult one;
  AgeResult other;
  Interleaving threads;
  threads.Add("one", [&] { one = Age(); });
  threads.Add("other", [&] { other = Age(); });
  threads.RunTo("one", HookPoint::kParentToClear);
  threads.RunTo("other", HookPoint::kParentToClear);
  threads.RunTo("one", HookPoint::kClearToToken);
  threads.RunToEnd("other");
  threads.RunToEnd("one");
  EXPECT_EQ(one.young_page_count + other.young_page_count, 1u);
  EXPECT_EQ(one.old_page_count + one.young_page_count, 5u);
  EXPECT_EQ(other.old_page_count + other.young_page_count, 5u);
  EXPECT_EQ(Old(), 5u);
}

TEST_F(TdpAgeTablesTest, Race55AFrozenEntryKeepsItsBits) {
  ReadPage(3);
  const Spte before = Parent().Load();
  Interleaving threads;
  threads.Add("age", [&] { Age(); });
  threads.RunTo("age", HookPoint::kParentToClear);
  SpteSlot& parent = Parent();
  parent.Store(Spte::Frozen());
  threads.RunToEnd("age");
  EXPECT_EQ(parent.Load(), Spte::Frozen());
  parent.Store(before);
}

TEST_F(TdpAgeTablesTest, Race55AWalkOverAFrozenEntryStartsOver) {
  SpteSlot& parent = Parent();
  const Spte before = parent.Load();
  Interleaving threads;
  threads.Add("vcpu", [&] { ReadPage(4); });
  threads.RunTo("vcpu", HookPoint::kEntryToWalk);
  parent.Store(Spte::Frozen());
  threads.RunTo("vcpu", HookPoint::kWalkToTable, 2);  // again from the root
  EXPECT_EQ(parent.Load(), Spte::Frozen());
  parent.Store(before);
  threads.RunToEnd("vcpu");
  EXPECT_THAT(Young(), ElementsAre(4));
}

}  // namespace
}  // namespace mmu
