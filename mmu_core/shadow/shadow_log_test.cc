#include "mmu_core/shadow/shadow_log.h"

#include <atomic>
#include <cstdint>
#include <thread>

#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/hold_clock.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/shadow_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::IndirectRole;
using ::mmu::testing::LeapingHoldClock;
using ::mmu::testing::LockTrace;
using ::mmu::testing::ShadowFixture;

constexpr uint64_t k2MPages = PagesPer(Level::k2M);
constexpr uint64_t k1GPages = PagesPer(Level::k1G);

class ShadowLogTest : public ::testing::Test, protected ShadowFixture {
 protected:
  ShadowLogTest() {
    Map(small_, 0, 1000);
    Map(small_, 1, 1001);
    Map(large_, 0, 2 * k2MPages);
    Map(larger_, 0, k1GPages);
  }

  const Memslot& slot() { return *vm_.SlotOf(0, Gfn(0)); }
  static Spte At(const ShadowPageState& page, int index) {
    return page.EntryAt(index).Load();
  }
  // The write triple (SPTE-15) of an entry.
  static WriteTriple Triple(const ShadowPageState& page, int index) {
    return SpteFormat::Ept().TripleOf(At(page, index));
  }
  // Adds a leaf with a given SPTE, unlike Map, which makes the SPTE itself.
  void MapAs(ShadowPageState& page, int index, uint64_t gfn, Spte spte) {
    TopUp();
    pages_.links().AddLeaf(lock_, page.EntryAt(index), spte,
                           {Gfn(gfn), page.page->role.access()}, Rmaps(gfn),
                           caches_.lists, nullptr);
  }

  static constexpr WriteTriple kWritable = {true, true, true};
  static constexpr WriteTriple kLogged = {true, true, false};
  static constexpr WriteTriple kForGood = {true, false, false};

  ShadowLog log_{Parts()};
  ShadowPageState& small_ = Page(1, IndirectRole(1));
  ShadowPageState& large_ = Page(2, IndirectRole(2));
  ShadowPageState& larger_ = Page(3, IndirectRole(3));
};

// Covers: SPTE-35
TEST_F(ShadowLogTest, WriteProtectionTakesWFromTheLevelOnAndNothingElse) {
  const uint64_t flushes = Flushes();
  MmuCost cost;
  EXPECT_TRUE(
      log_.WriteProtect(lock_, slot(), slot().range(), Level::k2M, &cost));
  EXPECT_EQ(cost.sptes_visited_count, 2);
  EXPECT_EQ(Triple(small_, 0), kWritable);
  EXPECT_EQ(Triple(large_, 0), kLogged);
  EXPECT_EQ(Triple(larger_, 0), kLogged);
  EXPECT_TRUE(SpteFormat::Ept().IsDirty(At(large_, 0)));
  EXPECT_FALSE(
      log_.WriteProtect(lock_, slot(), slot().range(), Level::k2M, nullptr))
      << "it is all protected";
  EXPECT_TRUE(
      log_.WriteProtect(lock_, slot(), slot().range(), Level::k4K, nullptr));
  EXPECT_EQ(Triple(small_, 0), kLogged);
  EXPECT_EQ(Triple(small_, 1), kLogged);
  EXPECT_EQ(Flushes(), flushes) << "that is for the caller";
}

TEST_F(ShadowLogTest, OnlyTheRangeIsProtected) {
  EXPECT_TRUE(log_.WriteProtect(lock_, slot(), GfnRange::Of(Gfn(1001), 600),
                                Level::k4K, nullptr));
  EXPECT_EQ(Triple(small_, 0), kWritable);
  EXPECT_EQ(Triple(small_, 1), kLogged);
  EXPECT_EQ(Triple(large_, 0), kLogged) << "a part of it is in the range";
  EXPECT_EQ(Triple(larger_, 0), kWritable);
}

// Covers: TLB-08
TEST_F(ShadowLogTest, WhatIsLoggedMustBeFlushedWhenItIsProtectedForGood) {
  const Spte writable = At(large_, 0);
  log_.WriteProtect(lock_, slot(), slot().range(), Level::k2M, nullptr);
  const Spte logged = At(large_, 0);
  EXPECT_FALSE(logged.IsWritable());
  EXPECT_TRUE(pages_.links().WriteProtectGfn(
      lock_, Rmaps(0), Gfn(2 * k2MPages + 7), Level::k2M));
  EXPECT_EQ(Triple(large_, 0), kForGood);
  const SpteFormat& format = SpteFormat::Ept();
  EXPECT_FALSE(format.ChangeNeedsFlush(writable, logged));
  EXPECT_TRUE(format.ChangeNeedsFlush(logged, At(large_, 0)));
}

TEST_F(ShadowLogTest, DirtyBitsAreTakenFromSmallLeafsOnly) {
  const SpteFormat& format = SpteFormat::Ept();
  EXPECT_TRUE(log_.ClearDirty(lock_, slot(), slot().range(), nullptr));
  EXPECT_FALSE(format.IsDirty(At(small_, 0)));
  EXPECT_EQ(Triple(small_, 0), kWritable);
  EXPECT_TRUE(format.IsDirty(At(large_, 0)));
  EXPECT_TRUE(format.IsDirty(At(larger_, 0)));
  EXPECT_FALSE(log_.ClearDirty(lock_, slot(), slot().range(), nullptr));
}

// ClearDirty clears W where the processor does not set Dirty bits: in leafs
// without A/D bits, and in write-protected leafs of nested guests (type 2).
// Covers: SPTE-04
TEST_F(ShadowLogTest, WhereWritesAreNoticedByWItGoesInsteadOfD) {
  PageRole::Fields fields = IndirectRole(1).fields();
  fields.ad_disabled = true;
  ShadowPageState& no_ad = Page(4, PageRole::Of(fields));
  const SpteFormat& ept = SpteFormat::Ept();
  const SpteFormat& without = SpteFormat::EptWithoutAd();
  MapAs(no_ad, 0, 1002, without.MakeLeaf({.pfn = Pfn(1002), .write = true}));
  MapAs(small_, 2, 1003,
        ept.MakeLeaf({.pfn = Pfn(1003),
                      .write = true,
                      .dirty_tracking = DirtyTracking::kWriteProtect}));
  const Spte no_ad_before = At(no_ad, 0);
  const Spte nested_before = At(small_, 2);
  EXPECT_TRUE(log_.ClearDirty(lock_, slot(), slot().range(), nullptr));
  EXPECT_EQ(At(no_ad, 0), no_ad_before.Without(spte_bits::kWrite));
  EXPECT_EQ(At(small_, 2), nested_before.Without(spte_bits::kWrite));
  EXPECT_EQ(Triple(small_, 0), kWritable);
}

TEST_F(ShadowLogTest, AMaskNamesTheSmallLeafsThatLoseSomething) {
  const SpteFormat& format = SpteFormat::Ept();
  ShadowPageState& alias = Page(4, IndirectRole(1));
  Map(alias, 9, 1001);
  Map(small_, 2, 1000 + 63);
  Map(small_, 3, 1000 + 64);
  const uint64_t mask = uint64_t{1} << 63 | 2;
  EXPECT_TRUE(log_.ClearDirtyMasked(lock_, slot(), Gfn(1000), mask, nullptr));
  EXPECT_TRUE(format.IsDirty(At(small_, 0)));
  EXPECT_FALSE(format.IsDirty(At(small_, 1)));
  EXPECT_FALSE(format.IsDirty(At(alias, 9))) << "every mapping of the page";
  EXPECT_FALSE(format.IsDirty(At(small_, 2)));
  EXPECT_TRUE(format.IsDirty(At(small_, 3)));
  EXPECT_EQ(Triple(small_, 1), kWritable);

  EXPECT_TRUE(log_.WriteProtectMasked(lock_, slot(), Gfn(1000), mask, nullptr));
  EXPECT_EQ(Triple(small_, 0), kWritable);
  EXPECT_EQ(Triple(small_, 1), kLogged);
  EXPECT_EQ(Triple(alias, 9), kLogged);
  EXPECT_EQ(Triple(small_, 2), kLogged);
  EXPECT_EQ(Triple(small_, 3), kWritable);
  EXPECT_FALSE(
      log_.WriteProtectMasked(lock_, slot(), Gfn(1000), mask, nullptr));
}

// Covers: DL-16
TEST_F(ShadowLogTest, AMaskLeavesHugeLeafsAlone) {
  EXPECT_FALSE(log_.WriteProtectMasked(lock_, slot(), Gfn(2 * k2MPages),
                                       ~uint64_t{0}, nullptr));
  EXPECT_FALSE(log_.ClearDirtyMasked(lock_, slot(), Gfn(k1GPages), ~uint64_t{0},
                                     nullptr));
  EXPECT_EQ(Triple(large_, 0), kWritable);
  EXPECT_EQ(Triple(larger_, 0), kWritable);
}

TEST_F(ShadowLogTest, WriteProtectionLetsOthersHaveTheLockWithoutAFlush) {
  const uint64_t flushes = Flushes();
  uint64_t writable_when_seen = 0;
  std::thread waiter([&] {
    MmuReadLocked read(mmu_lock_, LockOp::kAge);
    for (int i = 0; i < 2; ++i) {
      writable_when_seen += At(small_, i).IsWritable();
    }
  });
  while (!lock_.NeedYield()) std::this_thread::yield();
  EXPECT_TRUE(log_.WriteProtect(
      lock_, slot(), GfnRange::Of(Gfn(1000), k1GPages), Level::k4K, nullptr));
  WithoutLock([&] { waiter.join(); });
  EXPECT_EQ(writable_when_seen, 1u) << "after the first rmap";
  EXPECT_EQ(Triple(larger_, 0), kLogged);
  EXPECT_EQ(Flushes(), flushes);
}

TEST_F(ShadowLogTest, AMaskOfLongRmapsTakesMoreThanOneHold) {
  ShadowPageState& aliases = Page(4, IndirectRole(1));
  for (int i = 0; i < 100; ++i) Map(aliases, i, 1000);
  const LeapingHoldClock clock;  // whoever looks at it has to yield
  WithoutLock([] {});            // a hold by this clock
  LockTrace trace;
  EXPECT_TRUE(log_.WriteProtectMasked(lock_, slot(), Gfn(1000), 7, nullptr));
  EXPECT_GE(trace.CountOf(HookPoint::kYield), 1);
}

TEST_F(ShadowLogTest, ASlotWithoutRmapsHasNothing) {
  Memslot slot = this->slot();
  slot.rmaps = nullptr;
  EXPECT_FALSE(
      log_.WriteProtect(lock_, slot, slot.range(), Level::k4K, nullptr));
  EXPECT_FALSE(log_.ClearDirty(lock_, slot, slot.range(), nullptr));
  EXPECT_FALSE(log_.WriteProtectMasked(lock_, slot, Gfn(1000), 3, nullptr));
  EXPECT_FALSE(log_.ClearDirtyMasked(lock_, slot, Gfn(1000), 3, nullptr));
  EXPECT_EQ(Triple(small_, 0), kWritable);
}

}  // namespace
}  // namespace mmu
