#include "mmu_core/shadow/shadow_age.h"

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/shadow_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::IndirectRole;
using ::mmu::testing::Interleaving;
using ::mmu::testing::ShadowFixture;
using ::testing::ElementsAre;

constexpr uint64_t k2MPages = PagesPer(Level::k2M);

class ShadowAgeTest : public ::testing::Test, protected ShadowFixture {
 protected:
  static constexpr GfnRange kRange = GfnRange::Of(Gfn(1000), 8);

  AgeResult Age(AgeMode mode) { return AgeRange(kRange, mode); }
  AgeResult AgeRange(GfnRange range, AgeMode mode) {
    return AgeRange(range, mode, AgeResult::For(range));
  }
  AgeResult AgeRange(GfnRange range, AgeMode mode, AgeResult result) {
    result.mapped.resize(result.young.size());
    {
      RcuReadGuard rcu;
      age_.Age(*vm_.SlotOf(0, range.start), range, range, mode, result, &cost_);
    }
    CountPages(result);
    return result;
  }
  void MakeOld(ShadowPageState& page, int index) {
    SpteSlot& sptep = page.EntryAt(index);
    sptep.Store(Parts().FormatOf(page).WithoutAccessed(sptep.Load()));
  }
  bool IsAccessed(ShadowPageState& page, int index) {
    return SpteFormat::Ept().IsAccessed(page.EntryAt(index).Load());
  }

  ShadowAge age_{Parts()};
  MmuCost cost_;
  bool unmapped_ = false;
};

// Covers: AGE-14
TEST_F(ShadowAgeTest, APageIsYoungIfOneOfItsMappingsIs) {
  ShadowPageState& page = Page(1, IndirectRole(1));
  ShadowPageState& alias = Page(2, IndirectRole(1));
  Map(page, 0, 1000);
  Map(alias, 0, 1000);
  Map(page, 1, 1001);
  Map(page, 2, 1002);
  Map(page, 3, 1008);
  MakeOld(page, 0);
  MakeOld(page, 1);
  const uint64_t flushes = Flushes();

  AgeResult tested = Age(AgeMode::kTest);
  EXPECT_THAT(tested.young, ElementsAre(0b101));
  EXPECT_THAT(tested.mapped, ElementsAre(0b111));
  EXPECT_EQ(tested.young_page_count, 2u);
  EXPECT_EQ(tested.old_page_count, 1u);
  EXPECT_EQ(cost_.sptes_visited_count, 4);
  EXPECT_TRUE(IsAccessed(alias, 0)) << "a test changes nothing";

  EXPECT_THAT(Age(AgeMode::kTestAndClear).young, ElementsAre(0b101));
  EXPECT_FALSE(IsAccessed(alias, 0));
  EXPECT_FALSE(IsAccessed(page, 2));
  EXPECT_TRUE(IsAccessed(page, 3)) << "not in the range";
  tested = Age(AgeMode::kTest);
  EXPECT_THAT(tested.young, ElementsAre(0));
  EXPECT_EQ(tested.old_page_count, 3u);
  EXPECT_EQ(Flushes(), flushes) << "ageing never flushes (AGE-16)";
}

// An SPTE that is being dropped is still in its rmap, but not present any more.
TEST_F(ShadowAgeTest, WhatIsBeingDroppedDoesNotMapThePage) {
  ShadowPageState& page = Page(1, IndirectRole(1));
  Map(page, 0, 1000);
  const Spte leaf = page.EntryAt(0).Load();
  page.EntryAt(0).Store(Spte::Initial());
  const AgeResult result = Age(AgeMode::kTestAndClear);
  EXPECT_THAT(result.mapped, ElementsAre(0));
  EXPECT_EQ(page.EntryAt(0).Load(), Spte::Initial());
  page.EntryAt(0).Store(leaf);
}

// Ageing adds to the result of another MMU. Pages that the other MMU found
// young and pages that only it maps stay in the result, and no page counts
// twice.
TEST_F(ShadowAgeTest, TheResultIsAddedToWhatAnotherMmuFound) {
  ShadowPageState& page = Page(1, IndirectRole(1));
  for (int i = 0; i < 4; ++i) Map(page, i, 1000 + i);
  MakeOld(page, 0);
  MakeOld(page, 1);
  AgeResult other = AgeResult::For(kRange);
  other.young = {0b010001};   // 1000, 1004
  other.mapped = {0b110111};  // not 1003
  const AgeResult both = AgeRange(kRange, AgeMode::kTestAndClear, other);
  EXPECT_THAT(both.young, ElementsAre(0b011101));
  EXPECT_THAT(both.mapped, ElementsAre(0b111111));
  EXPECT_EQ(both.young_page_count, 4u);
  EXPECT_EQ(both.old_page_count, 2u);
}

// Covers: AGE-17
TEST_F(ShadowAgeTest, AHugeLeafIsOneUnit) {
  ShadowPageState& large = Page(1, IndirectRole(2));
  ShadowPageState& larger = Page(2, IndirectRole(3));
  Map(large, 0, 2 * k2MPages);
  Map(larger, 0, PagesPer(Level::k1G));
  const GfnRange range = GfnRange::Of(Gfn(2 * k2MPages + 70), 3);
  EXPECT_EQ(AgeRange(range, AgeMode::kTestAndClear).young_page_count, 3u);
  EXPECT_FALSE(IsAccessed(large, 0));
  const AgeResult whole =
      AgeRange(GfnRange::Of(Gfn(2 * k2MPages), k2MPages), AgeMode::kTest);
  EXPECT_EQ(whole.young_page_count, 0u);
  EXPECT_EQ(whole.old_page_count, k2MPages);
  EXPECT_EQ(AgeRange(GfnRange::Of(Gfn(PagesPer(Level::k1G) + 5), 100),
                     AgeMode::kTestAndClear)
                .young_page_count,
            100u);
  EXPECT_FALSE(IsAccessed(larger, 0));
}

TEST_F(ShadowAgeTest, WithoutAccessedBitsALeafIsAccessTracked) {
  PageRole::Fields fields = IndirectRole(1).fields();
  fields.ad_disabled = true;
  ShadowPageState& page = Page(1, PageRole::Of(fields));
  const SpteFormat& format = SpteFormat::EptWithoutAd();
  const Spte accessed = format.MakeLeaf({.pfn = Pfn(1000), .write = true});
  pages_.links().AddLeaf(lock_, page.EntryAt(0), accessed,
                         {Gfn(1000), kAllRights}, Rmaps(1000), caches_.lists,
                         nullptr);
  EXPECT_EQ(Age(AgeMode::kTest).young_page_count, 1u);
  EXPECT_EQ(page.EntryAt(0).Load(), accessed);
  EXPECT_EQ(Age(AgeMode::kTestAndClear).young_page_count, 1u);
  const Spte tracked = page.EntryAt(0).Load();
  EXPECT_TRUE(format.IsAccessTracked(tracked));
  EXPECT_EQ(tracked, format.WithoutAccessed(accessed));
  const AgeResult again = Age(AgeMode::kTestAndClear);
  EXPECT_EQ(again.young_page_count, 0u);
  EXPECT_EQ(again.old_page_count, 1u);
  EXPECT_EQ(page.EntryAt(0).Load(), tracked);
}

// A zap drops an SPTE after the ageing has read it and before the ageing clears
// its Accessed bit. The page counts as young, and the SPTE stays empty.
// RACE-28: the SPTE cannot be used again before the ageing has left the rmap.
// Covers: AGE-14
TEST_F(ShadowAgeTest, Race28AgeingMeetsAZapOfTheSameRmap) {
  for (const AdBits ad : {AdBits::kEnabled, AdBits::kDisabled}) {
    PageRole::Fields fields = IndirectRole(1).fields();
    fields.ad_disabled = ad == AdBits::kDisabled;
    ShadowPageState& page = Page(1, PageRole::Of(fields));
    for (int i = 0; i < 2; ++i) {
      pages_.links().AddLeaf(
          lock_, page.EntryAt(i),
          Parts().FormatOf(page).MakeLeaf({.pfn = Pfn(1000), .write = true}),
          {Gfn(1000), kAllRights}, Rmaps(1000), caches_.lists, nullptr);
    }
    AgeResult result;
    Interleaving threads;
    threads.Add("age", [&] { result = Age(AgeMode::kTestAndClear); });
    threads.Add("zap", [&] {
      pages_.links().DropLeaf(lock_, page.EntryAt(0));
      pages_.links().DropLeaf(lock_, page.EntryAt(1));
    });
    threads.RunTo("age", HookPoint::kAgeToExchange);
    threads.RunTo("zap", HookPoint::kRmapContended);
    threads.RunToEnd("age");
    EXPECT_EQ(result.young_page_count, 1u);
    EXPECT_EQ(RmapCount(1000), 2u) << "still in the list";
    threads.RunToEnd("zap");
    EXPECT_EQ(page.EntryAt(0).Load(), Spte::Initial());
    EXPECT_EQ(page.EntryAt(1).Load(), Spte::Initial());
    EXPECT_EQ(RmapCount(1000), 0u);
  }
}

// Covers: AGE-14
TEST_F(ShadowAgeTest, Race28AgeingThatComesAfterTheDropFindsNothing) {
  ShadowPageState& page = Page(1, IndirectRole(1));
  ShadowPageState& alias = Page(2, IndirectRole(1));
  Map(page, 0, 1000);
  Map(alias, 0, 1000);
  AgeResult result;
  Interleaving threads;
  threads.Add("zap", [&] {
    unmapped_ =
        pages_.links().ZapRmap(lock_, Rmaps(1000).Head(Gfn(1000), Level::k4K));
  });
  threads.Add("age", [&] { result = Age(AgeMode::kTestAndClear); });
  threads.RunTo("zap", HookPoint::kRmapLockToChange);
  threads.RunTo("age", HookPoint::kRmapContended);
  threads.RunToEnd("zap");
  threads.RunToEnd("age");
  EXPECT_TRUE(unmapped_);
  EXPECT_EQ(result.young_page_count, 0u);
  EXPECT_EQ(result.old_page_count, 0u);
}

// For TSan and ASan: one thread maps, zaps and frees pages under mmu_lock while
// others age them without it.
TEST_F(ShadowAgeTest, Race28AgeingWhilePagesComeAndGo) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> agers;
  for (const AgeMode mode : {AgeMode::kTest, AgeMode::kTestAndClear}) {
    agers.emplace_back([&, mode] {
      const GfnRange range = GfnRange::Of(Gfn(1000), 8);
      while (!stop.load()) {
        AgeResult result = AgeResult::For(range);
        result.mapped.resize(result.young.size());
        RcuReadGuard rcu;
        age_.Age(*vm_.SlotOf(0, range.start), range, range, mode, result,
                 nullptr);
        EXPECT_EQ(result.young[0] & ~result.mapped[0], 0u);
      }
    });
  }
  for (int round = 0; round < 200; ++round) {
    ShadowPageState& page = Page(1, IndirectRole(1));
    ShadowPageState& alias = Page(2, IndirectRole(1));
    for (int i = 0; i < 8; ++i) {
      Map(page, i, 1000 + i);
      Map(alias, i, 1000 + i);
    }
    pages_.links().DropLeaf(lock_, page.EntryAt(round % 8));
    Zap(page);
    if (round % 2 == 0) Zap(alias);
    for (int i = 0; i < 8 && round % 2 == 1; ++i) {
      pages_.links().DropLeaf(lock_, alias.EntryAt(i));
    }
  }
  stop.store(true);
  for (std::thread& ager : agers) ager.join();
  EXPECT_EQ(counters_.Leafs(Level::k4K), 0u);
}

TEST_F(ShadowAgeTest, ASlotWithoutRmapsHasNothing) {
  Map(Page(1, IndirectRole(1)), 0, 1000);
  Memslot slot = *vm_.SlotOf(0, Gfn(0));
  slot.rmaps = nullptr;
  AgeResult result;
  result.young = {0};
  result.mapped = {0};
  const GfnRange range = GfnRange::Of(Gfn(1000), 8);
  RcuReadGuard rcu;
  age_.Age(slot, range, range, AgeMode::kTest, result, nullptr);
  EXPECT_THAT(result.mapped, ElementsAre(0));
}

}  // namespace
}  // namespace mmu
