#include "mmu_core/shadow/shadow_leaf.h"

#include <cstdint>
#include <memory>

#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/shadow/unsync_gate.h"
#include "mmu_core/testing/shadow_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::DirectRole;
using ::mmu::testing::IndirectRole;
using ::mmu::testing::NestedRole;
using ::mmu::testing::ShadowFixture;

constexpr WriteTriple kWritable = {true, true, true};
constexpr WriteTriple kProtected = {true, false, false};
constexpr WriteTriple kReadonly = {false, false, false};
constexpr AccessRights kAllButWrite = kAllRights.Without(kMayWrite);

PageRole WithoutAd(PageRole role) {
  PageRole::Fields fields = role.fields();
  fields.ad_disabled = true;
  return PageRole::Of(fields);
}

class ShadowLeafTest : public ::testing::Test, protected ShadowFixture {
 protected:
  const Memslot& Slot() { return *vm_.SlotOf(0, Gfn(0)); }
  // The fixture's slot with dirty logging on.
  Memslot LoggedSlot() {
    Memslot slot = Slot();
    slot.flags |= kMemslotLogDirtyPages;
    slot.dirty_bitmap =
        std::make_shared<DirtyBitmap>(slot.npages, InitiallySet::kNo);
    return slot;
  }
  static ShadowLeafRequest Request(uint64_t gfn,
                                   AccessRights access = kAllRights) {
    return {.pfn = Pfn(gfn),
            .translation = {Gfn(gfn), access},
            .map_writable = HostWritable::kYes};
  }
  ShadowLeaf Make(const ShadowPageState& page,
                  const ShadowLeafRequest& request) {
    return leafs_.Make(lock_, page, Slot(), request);
  }
  ShadowLeaf MakeLogged(const ShadowPageState& page, const Memslot& slot,
                        const ShadowLeafRequest& request) {
    return leafs_.Make(lock_, page, slot, request);
  }

  const SpteFormat& ept_ = SpteFormat::Ept();
  UnsyncGate gate_{pages_.set(), pages_.unsync()};
  ShadowLeafs leafs_{Parts(), gate_, {}};
  ShadowPageState& page_ = Page(1, IndirectRole(1));
};

// Covers: SPTE-12, SPTE-13
TEST_F(ShadowLeafTest, WNeedsTheGuestsAndTheHostsLeave) {
  EXPECT_EQ(ept_.TripleOf(Make(page_, Request(700)).spte), kWritable);
  EXPECT_EQ(ept_.TripleOf(Make(page_, Request(700, kAllButWrite)).spte),
            kProtected);
  ShadowLeafRequest request = Request(700);
  request.map_writable = HostWritable::kNo;
  const ShadowLeaf leaf = Make(page_, request);
  EXPECT_EQ(ept_.TripleOf(leaf.spte), kReadonly);
  EXPECT_FALSE(leaf.write_protected) << "it is the host who forbids it";

  EXPECT_TRUE(ept_.IsDirty(Make(page_, Request(700)).spte));
  EXPECT_FALSE(ept_.IsDirty(Make(page_, Request(700, kAllButWrite)).spte));
}

// Covers: SPTE-14
TEST_F(ShadowLeafTest, ALeafOfATrackedGfnIsReadOnly) {
  Page(600, IndirectRole(2));
  const ShadowLeaf leaf = Make(page_, Request(600));
  EXPECT_EQ(ept_.TripleOf(leaf.spte), kProtected);
  EXPECT_FALSE(ept_.IsDirty(leaf.spte));
  EXPECT_TRUE(leaf.write_protected);
  EXPECT_FALSE(Make(page_, Request(600, kAllButWrite)).write_protected)
      << "nobody asked for W";
}

// Covers: SPTE-14, SHD-30
TEST_F(ShadowLeafTest, AWritableLeafMakesPageTablesUnsync) {
  ShadowPageState& table = Page(600, IndirectRole(1));
  Make(page_, Request(600, kAllButWrite));
  EXPECT_FALSE(table.unsync);

  ShadowLeafRequest request = Request(600);
  request.prefetched = Prefetched::kYes;
  EXPECT_TRUE(Make(page_, request).write_protected);
  EXPECT_FALSE(table.unsync);

  request.prefetched = Prefetched::kNo;
  EXPECT_EQ(ept_.TripleOf(Make(page_, request).spte), kWritable);
  EXPECT_TRUE(table.unsync);
}

// Covers: SPTE-14, SHD-35
TEST_F(ShadowLeafTest, WhileInSyncOnlyALeafThatWasWritableStaysSo) {
  ShadowPageState& table = Page(600, IndirectRole(1));
  MarkUnsync(table);
  ShadowLeafRequest request = Request(600);
  request.synchronizing = true;
  EXPECT_TRUE(Make(page_, request).write_protected);
  request.old_spte = LeafTo(page_, 600);
  EXPECT_EQ(ept_.TripleOf(Make(page_, request).spte), kWritable);
  // A non-present SPTE says nothing about W, whatever its bits.
  request.old_spte = Spte(spte_bits::kWrite);
  EXPECT_TRUE(Make(page_, request).write_protected);
}

// Covers: SPTE-11
TEST_F(ShadowLeafTest, ALeafIsBornYoungUnlessItIsAPrefetchAndNoSync) {
  ShadowLeafRequest request = Request(700);
  EXPECT_TRUE(ept_.IsAccessed(Make(page_, request).spte));
  request.prefetched = Prefetched::kYes;
  EXPECT_FALSE(ept_.IsAccessed(Make(page_, request).spte));
  request.synchronizing = true;
  EXPECT_TRUE(ept_.IsAccessed(Make(page_, request).spte));
}

// Covers: SPTE-16
TEST_F(ShadowLeafTest, AWritableLeafIsDirtyInTheLogAtOnce) {
  const Memslot slot = LoggedSlot();
  MakeLogged(page_, slot, Request(700, kAllButWrite));
  EXPECT_EQ(slot.dirty_bitmap->CountDirty(), 0u);
  EXPECT_TRUE(MakeLogged(page_, slot, Request(700)).marked_dirty);
  EXPECT_TRUE(slot.dirty_bitmap->Test(700));
  EXPECT_EQ(slot.dirty_bitmap->CountDirty(), 1u);
  EXPECT_FALSE(MakeLogged(page_, slot, Request(700)).marked_dirty)
      << "it was dirty already";
  EXPECT_FALSE(Make(page_, Request(701)).marked_dirty) << "not logged";

  // A leaf to which the gate refuses W does not mark its page.
  Page(600, IndirectRole(2));
  EXPECT_FALSE(MakeLogged(page_, slot, Request(600)).marked_dirty);
  EXPECT_FALSE(slot.dirty_bitmap->Test(600));

  DirtyRing ring(256, 0);
  ShadowLeafRequest request = Request(702);
  request.ring = &ring;
  EXPECT_TRUE(MakeLogged(page_, slot, request).marked_dirty);
  EXPECT_FALSE(slot.dirty_bitmap->Test(702)) << "the ring has it";
}

// Covers: SPTE-16, ROLE-08
TEST_F(ShadowLeafTest, WithoutAdBitsAPrefetchIsAccessTrackedAndNotDirty) {
  const SpteFormat& format = SpteFormat::EptWithoutAd();
  ShadowPageState& page = Page(2, WithoutAd(NestedRole(1)));
  const Memslot slot = LoggedSlot();
  ShadowLeafRequest request = Request(700);
  request.prefetched = Prefetched::kYes;
  ShadowLeaf leaf = MakeLogged(page, slot, request);
  EXPECT_TRUE(format.IsAccessTracked(leaf.spte));
  EXPECT_FALSE(leaf.spte.IsWritable());
  EXPECT_FALSE(leaf.marked_dirty);
  EXPECT_EQ(slot.dirty_bitmap->CountDirty(), 0u);

  leaf = MakeLogged(page, slot, Request(700));
  EXPECT_EQ(leaf.spte.bits() >> 60 & 3, 1u) << "the A/D type";
  EXPECT_EQ(format.TripleOf(leaf.spte), kWritable);
  EXPECT_TRUE(slot.dirty_bitmap->Test(700));
}

// Covers: SPTE-04
TEST_F(ShadowLeafTest, WhileCpusLogTheLeafsOfL2AreWriteProtectOnly) {
  ShadowLeafs leafs(Parts(), gate_,
                    {.nested_dirty_tracking = DirtyTracking::kWriteProtect});
  const auto type = [&](const ShadowPageState& page) {
    return leafs.Make(lock_, page, Slot(), Request(700)).spte.bits() >> 60 & 3;
  };
  EXPECT_EQ(type(Page(2, NestedRole(1))), 2u);
  EXPECT_EQ(type(page_), 0u) << "not of L2";
  EXPECT_EQ(Make(Page(2, NestedRole(1)), Request(700)).spte.bits() >> 60 & 3,
            0u)
      << "no CPU logs";
}

// Covers: SPTE-17
TEST_F(ShadowLeafTest, AHugeLeafIsNotExecutableWhileThatIsMitigated) {
  NxHugePages nx;
  ShadowLeafs leafs(Parts(), gate_, {.nx_huge_pages = &nx});
  ShadowPageState& huge_page = Page(0, DirectRole(2));
  const auto executable = [&](const ShadowPageState& page) {
    return ept_.IsExecutable(
        leafs.Make(lock_, page, Slot(), Request(512)).spte);
  };
  EXPECT_TRUE(executable(huge_page));
  nx.SetMitigated(true);
  EXPECT_FALSE(executable(huge_page));
  EXPECT_TRUE(executable(page_));
  const Spte spte = leafs.Make(lock_, huge_page, Slot(), Request(512)).spte;
  EXPECT_EQ(spte.bits() & (uint64_t{1} << 2 | uint64_t{1} << 10), 0u);
  EXPECT_TRUE(spte.IsPresentLeaf(Level::k2M));
  nx.SetMitigated(false);
}

// Covers: SPTE-18
TEST_F(ShadowLeafTest, WhatTheGuestGrantsIsWhatTheLeafGrants) {
  const Spte exec_only = Make(page_, Request(700, kMayExec)).spte;
  EXPECT_EQ(exec_only.bits() & 7, 4u) << "R and W clear, X set";
  EXPECT_TRUE(ept_.Allows(exec_only, AccessKind::kExec));
  EXPECT_FALSE(ept_.Allows(exec_only, AccessKind::kRead));

  ShadowParts parts = Parts();
  const ShadowParts legacy = {SpteFormat::Npt(), SpteFormat::Npt(), parts.vm,
                              parts.tlb, parts.counters};
  ShadowLeafs leafs(legacy, gate_, {});
  for (uint32_t bits = 1; bits < 16; bits += 2) {
    const AccessRights access(bits);  // always readable
    EXPECT_EQ(ept_.RightsOf(Make(page_, Request(700, access)).spte), access);
    EXPECT_EQ(SpteFormat::Npt().RightsOf(
                  leafs.Make(lock_, page_, Slot(), Request(700, access)).spte),
              access);
  }
}

}  // namespace
}  // namespace mmu
