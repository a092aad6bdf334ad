#include "mmu_core/shadow/shadow_recover.h"

#include <cstdint>
#include <memory>
#include <thread>
#include <utility>

#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/frame_map.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/shadow_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::DirectRole;
using ::mmu::testing::IndirectRole;
using ::mmu::testing::ShadowFixture;

constexpr uint64_t k2MPages = PagesPer(Level::k2M);
constexpr uint64_t k1GPages = PagesPer(Level::k1G);

using Counts = std::pair<uint64_t, uint64_t>;

class ShadowRecoverTest : public ::testing::Test, protected ShadowFixture {
 protected:
  // The fixture's slot, on a host that has pages of `level`.
  Memslot SlotOn(Level level) {
    Memslot slot = *vm_.SlotOf(0, Gfn(0));
    auto backing = Backing::Create({.kind = BackingKind::kMetadataOnly,
                                    .size_bytes = kSlotPages << kPageShift,
                                    .host_page_level = level},
                                   std::make_shared<FrameMap>());
    MMU_CHECK(backing.ok());
    slot.backing = *std::move(backing);
    return slot;
  }
  // The numbers of recovered pages of 2M and of 1G.
  static Counts CountsOf(const RecoverOutcome& outcome) {
    return {outcome.to_2m_count, outcome.to_1g_count};
  }
  Counts Recover(const Memslot& slot) {
    return CountsOf(recover_.Recover(lock_, slot, slot.range(), nullptr));
  }
  static bool IsMapped(const ShadowPageState& page, int index) {
    return page.EntryAt(index).Load().IsPresent();
  }

  ShadowRecover recover_{Parts(), pages_.links(), Level::k1G};
};

// Covers: SHD-82
TEST_F(ShadowRecoverTest, SmallLeafsOfDirectPagesGoWhereLargerAreAllowed) {
  ShadowPageState& direct = Page(4 * k2MPages, DirectRole(1));
  ShadowPageState& indirect = Page(1, IndirectRole(1));
  ShadowPageState& above = Page(2, IndirectRole(2));
  Link(above, 0, direct);
  for (int i = 0; i < 10; ++i) Map(direct, i, 4 * k2MPages + i);
  for (int i = 0; i < 10; ++i) Map(indirect, i, 4 * k2MPages + i);
  const uint64_t flushes = Flushes();
  EXPECT_EQ(Recover(SlotOn(Level::k2M)), Counts(1, 0));
  EXPECT_EQ(Flushes(), flushes + 1);
  EXPECT_EQ(counters_.Recoveries(Level::k2M), 1u);
  EXPECT_EQ(counters_.Leafs(Level::k4K), 10u);
  EXPECT_FALSE(IsMapped(direct, 9));
  EXPECT_TRUE(IsMapped(indirect, 9)) << "its size is the guest's choice";
  EXPECT_TRUE(IsMapped(above, 0)) << "the fault that follows replaces it";
  EXPECT_EQ(RmapCount(4 * k2MPages), 1u);

  EXPECT_EQ(Recover(SlotOn(Level::k2M)), Counts(0, 0));
  EXPECT_EQ(Flushes(), flushes + 1);
}

TEST_F(ShadowRecoverTest, WhatHasTheSizeThatIsAllowedStays) {
  ShadowPageState& large = Page(k1GPages, DirectRole(2));
  ShadowPageState& larger = Page(0, DirectRole(3));
  Link(larger, 1, large);
  Map(large, 0, k1GPages);
  Map(larger, 0, 0);
  EXPECT_EQ(Recover(SlotOn(Level::k4K)), Counts(0, 0));
  EXPECT_EQ(Recover(SlotOn(Level::k2M)), Counts(0, 0));
  EXPECT_TRUE(IsMapped(large, 0));
  EXPECT_EQ(Recover(SlotOn(Level::k1G)), Counts(0, 1));
  EXPECT_FALSE(IsMapped(large, 0));
  EXPECT_TRUE(IsMapped(larger, 0)) << "no rmap of level 3 is walked";
}

// A direct page below a guest's (or L1's) page of 2M recovers to 2M at most,
// even if the host has larger pages. An unreachable direct page does not count.
TEST_F(ShadowRecoverTest, CountsPagesOfTheSizeThatCanCome) {
  ShadowPageState& root = Page(0, DirectRole(3));
  ShadowPageState& middle = Page(0, DirectRole(2));
  ShadowPageState& small = Page(0, DirectRole(1));
  ShadowPageState& next = Page(k2MPages, DirectRole(1));
  Link(root, 0, middle);
  Link(middle, 0, small);
  Link(middle, 1, next);
  Map(small, 0, 0);
  Map(next, 7, k2MPages + 7);
  // Small leafs for a 2M page that the guest maps, in the same GiB.
  ShadowPageState& guest = Page(k1GPages + 5 * k2MPages, IndirectRole(2));
  ShadowPageState& part = Page(6 * k2MPages, DirectRole(1));
  Link(guest, 0, part);
  Map(part, 3, 6 * k2MPages + 3);
  // Small leafs for another 2M page of the guest, in the next GiB.
  ShadowPageState& other = Page(k1GPages + k2MPages, DirectRole(1));
  Link(guest, 1, other);
  for (int i = 0; i < 3; ++i) Map(other, i, k1GPages + k2MPages + i);
  ShadowPageState& lost = Page(k1GPages, DirectRole(1));
  Map(lost, 0, k1GPages);

  EXPECT_EQ(Recover(SlotOn(Level::k1G)), Counts(1, 1));
  EXPECT_EQ(counters_.Leafs(Level::k4K), 0u);
  EXPECT_EQ(counters_.Recoveries(Level::k1G), 1u);
}

TEST_F(ShadowRecoverTest, WhereAGuestTableIsNoLargePageMayCome) {
  ShadowPageState& direct = Page(4 * k2MPages, DirectRole(1));
  Map(direct, 0, 4 * k2MPages);
  Page(4 * k2MPages + 100, IndirectRole(2));  // disallows huge pages here
  EXPECT_EQ(Recover(SlotOn(Level::k2M)), Counts(0, 0));
  EXPECT_TRUE(IsMapped(direct, 0));
}

TEST_F(ShadowRecoverTest, WhatWasZappedIsFlushedBeforeOthersHaveTheLock) {
  ShadowPageState& direct = Page(4 * k2MPages, DirectRole(1));
  Map(direct, 0, 4 * k2MPages);
  Map(direct, 1, 4 * k2MPages + 1);
  const Memslot slot = SlotOn(Level::k2M);
  const uint64_t flushes = Flushes();
  uint64_t leafs_seen = 0;
  uint64_t flushes_seen = 0;
  std::thread waiter([&] {
    MmuReadLocked read(mmu_lock_, LockOp::kAge);
    leafs_seen = counters_.Leafs(Level::k4K);
    flushes_seen = Flushes() - flushes;
  });
  while (!lock_.NeedYield()) std::this_thread::yield();
  recover_.Recover(lock_, slot, GfnRange::Of(Gfn(4 * k2MPages), k2MPages),
                   nullptr);
  EXPECT_EQ(counters_.Leafs(Level::k4K), 0u);
  WithoutLock([&] { waiter.join(); });
  EXPECT_EQ(leafs_seen, 1u);
  EXPECT_EQ(flushes_seen, 1u);
  EXPECT_EQ(Flushes(), flushes + 2);
}

TEST_F(ShadowRecoverTest, ASlotWithoutRmapsHasNothing) {
  Memslot slot = SlotOn(Level::k2M);
  slot.rmaps = nullptr;
  EXPECT_EQ(Recover(slot), Counts(0, 0));
}

}  // namespace
}  // namespace mmu
