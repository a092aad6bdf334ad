#include "mmu_core/shadow/shadow_links.h"

#include <cstdint>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/rmap/rmap_test_util.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/testing/flush_trace.h"
#include "mmu_core/testing/shadow_test_util.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {
namespace {

using ::testing::ElementsAre;

using ::mmu::testing::ContentsOf;
using ::mmu::testing::DirectRole;
using ::mmu::testing::FlushTrace;
using ::mmu::testing::IndirectRole;
using ::mmu::testing::NestedRole;
using ::mmu::testing::ShadowFixture;

class ShadowLinksTest : public ::testing::Test, protected ShadowFixture {
 protected:
  std::multiset<const SpteSlot*> RmapOf(uint64_t gfn, Level level) {
    return ContentsOf(Rmaps(gfn).Head(Gfn(gfn), level));
  }
};

// Covers: SHD-16
TEST_F(ShadowLinksTest, ALinkIsInTheChildsListOfParentsAndInNoRmap) {
  ShadowPageState& parent = Page(1, IndirectRole(2));
  ShadowPageState& alias = Page(2, IndirectRole(2));
  ShadowPageState& child = Page(3, IndirectRole(1));
  Link(parent, 7, child);
  Link(alias, 8, child);
  EXPECT_EQ(
      ContentsOf(child.parents),
      (std::multiset<const SpteSlot*>{&parent.EntryAt(7), &alias.EntryAt(8)}));
  EXPECT_TRUE(parent.EntryAt(7).Load().IsPresentTable(Level::k2M));
  for (const uint64_t gfn : {1, 2, 3}) {
    EXPECT_EQ(RmapCount(gfn, Level::k4K), 0u);
    EXPECT_EQ(RmapCount(gfn, Level::k2M), 0u);
  }
  EXPECT_EQ(counters_.Leafs(Level::k2M), 0u);

  EXPECT_EQ(&pages_.links().UnlinkChild(lock_, parent.EntryAt(7)), &child);
  EXPECT_EQ(parent.EntryAt(7).Load(), Spte::Initial());
  EXPECT_EQ(ContentsOf(child.parents),
            (std::multiset<const SpteSlot*>{&alias.EntryAt(8)}));
  Link(parent, 9, child);
  pages_.links().UnlinkParents(lock_, child);
  EXPECT_TRUE(child.parents.empty());
  EXPECT_EQ(parent.EntryAt(9).Load(), Spte::Initial());
  EXPECT_EQ(alias.EntryAt(8).Load(), Spte::Initial());
}

// Covers: SHD-15, STAT-11
TEST_F(ShadowLinksTest, ALeafIsInTheRmapOfWhatItMapsAndCounted) {
  ShadowPageState& small = Page(1, IndirectRole(1));
  ShadowPageState& large = Page(2, IndirectRole(2));
  ShadowPageState& larger = Page(3, IndirectRole(3));
  EXPECT_FALSE(Map(small, 5, 1000));
  EXPECT_FALSE(Map(small, 6, 1000));
  EXPECT_FALSE(Map(large, 0, 512));
  EXPECT_FALSE(Map(larger, 0, uint64_t{1} << 18));
  EXPECT_EQ(
      RmapOf(1000, Level::k4K),
      (std::multiset<const SpteSlot*>{&small.EntryAt(5), &small.EntryAt(6)}));
  EXPECT_EQ(RmapOf(1000, Level::k2M),
            (std::multiset<const SpteSlot*>{&large.EntryAt(0)}));
  EXPECT_EQ(counters_.Leafs(Level::k4K), 2u);
  EXPECT_EQ(counters_.Leafs(Level::k2M), 1u);
  EXPECT_EQ(counters_.Leafs(Level::k1G), 1u);

  // DropLeaf returns the bits that the processor set last.
  const Spte written = SpteFormat::Ept().WithAccessed(
      SpteFormat::Ept().WithDirty(small.EntryAt(5).Load()));
  small.EntryAt(5).Store(written);
  EXPECT_EQ(pages_.links().DropLeaf(lock_, small.EntryAt(5)), written);
  EXPECT_EQ(small.EntryAt(5).Load(), Spte::Initial());
  EXPECT_EQ(RmapOf(1000, Level::k4K),
            (std::multiset<const SpteSlot*>{&small.EntryAt(6)}));
  EXPECT_EQ(counters_.Leafs(Level::k4K), 1u);
  pages_.links().DropLeaf(lock_, large.EntryAt(0));
  pages_.links().DropLeaf(lock_, larger.EntryAt(0));
  EXPECT_EQ(counters_.Leafs(Level::k2M), 0u);
  EXPECT_EQ(counters_.Leafs(Level::k1G), 0u);
}

TEST_F(ShadowLinksTest, ALeafIsChangedInPlace) {
  const SpteFormat& format = SpteFormat::Ept();
  ShadowPageState& page = Page(1, IndirectRole(1));
  Map(page, 5, 1000);
  const Spte writable = page.EntryAt(5).Load();
  const Spte read_only = format.WithoutMmuWrite(writable);
  EXPECT_EQ(pages_.links().ChangeLeaf(lock_, page.EntryAt(5), read_only,
                                      kMayRead | kMayExec),
            writable);
  EXPECT_EQ(page.EntryAt(5).Load(), read_only);
  EXPECT_EQ(page.TranslationOf(5),
            (GuestTranslation{Gfn(1000), kMayRead | kMayExec}));
  EXPECT_EQ(
      pages_.links().ChangeLeaf(lock_, page.EntryAt(5), writable, kAllRights),
      read_only);
  EXPECT_EQ(RmapCount(1000), 1u);
  EXPECT_EQ(counters_.Leafs(Level::k4K), 1u);
}

// Covers: SHD-14, STAT-13
TEST_F(ShadowLinksTest, MappingOnePageTooOftenDropsAllItsMappings) {
  ShadowPageState* page = nullptr;
  for (int i = 0; i < 1001; ++i) {
    if (i % 512 == 0) page = &Page(static_cast<uint64_t>(i), IndirectRole(1));
    EXPECT_FALSE(Map(*page, i % 512, 5000));
  }
  EXPECT_EQ(RmapCount(5000), 1001u);
  EXPECT_EQ(ShadowCounters::Get(stats().max_mmu_rmap_size), 1000u);
  const uint64_t flushes = Flushes();
  const FlushTrace trace;

  EXPECT_TRUE(Map(*page, 511, 5000));
  EXPECT_THAT(trace.gfns(), ElementsAre(GfnRange::Of(Gfn(5000), 1)));
  EXPECT_EQ(RmapCount(5000), 0u);
  EXPECT_EQ(counters_.Leafs(Level::k4K), 0u);
  EXPECT_EQ(page->EntryAt(511).Load(), Spte::Initial());
  EXPECT_EQ(Flushes(), flushes + 1);
  EXPECT_EQ(ShadowCounters::Get(stats().max_mmu_rmap_size), 1001u);
}

// Covers: SHD-52
TEST_F(ShadowLinksTest, AHugeLeafIsDroppedAndFlushedBeforeATableStandsThere) {
  ShadowPageState& parent = Page(1, IndirectRole(2));
  ShadowPageState& child = Page(2, IndirectRole(1));
  Map(parent, 3, 1024);
  const uint64_t flushes = Flushes();
  bool was_empty = false;
  const FlushTrace trace([&](const TlbFlush&) {
    was_empty = parent.EntryAt(3).Load() == Spte::Initial();
  });
  TlbFlushBatch flush(tlb_, FlushScope::kRange, FlushReason::kSplit);
  pages_.links().LinkChild(lock_, parent.EntryAt(3), child, caches_.lists,
                           &flush, nullptr);
  EXPECT_TRUE(was_empty);
  EXPECT_THAT(trace.gfns(), ElementsAre(GfnRange::Of(Gfn(1024), 512)));
  EXPECT_EQ(Flushes(), flushes + 1);
  EXPECT_EQ(RmapCount(1024, Level::k2M), 0u);
  EXPECT_EQ(counters_.Leafs(Level::k2M), 0u);
  EXPECT_EQ(&ChildAt(parent.EntryAt(3).Load()), &child);
  EXPECT_EQ(child.parents.Count(lock_), 1u);

  // The child maps the whole range of the huge leaf, so no flush is needed.
  Map(parent, 4, 2048);
  pages_.links().LinkChild(lock_, parent.EntryAt(4), child, caches_.lists,
                           nullptr, nullptr);
  EXPECT_EQ(Flushes(), flushes + 1);
  EXPECT_EQ(counters_.Leafs(Level::k2M), 0u);
  EXPECT_EQ(child.parents.Count(lock_), 2u);
}

// Covers: SHD-52
TEST_F(ShadowLinksTest, LinkingAnUnsyncChildMarksWhatIsAbove) {
  ShadowPageState& root = Page(1, IndirectRole(3));
  ShadowPageState& middle = Page(2, IndirectRole(2));
  ShadowPageState& table = Page(3, IndirectRole(1));
  Link(root, 1, middle);
  MarkUnsync(table);
  EXPECT_EQ(root.unsync_children, 0u);
  Link(middle, 2, table);
  EXPECT_TRUE(middle.unsync_child_bitmap.test(2));
  EXPECT_TRUE(root.unsync_child_bitmap.test(1));
  ShadowPageState& other_root = Page(4, IndirectRole(3));
  Link(other_root, 5, middle);
  EXPECT_TRUE(other_root.unsync_child_bitmap.test(5));
}

TEST_F(ShadowLinksTest, TheRangeOfAnEntryIsWhatItStandsFor) {
  ShadowPageState& page = Page(1, NestedRole(2));
  Map(page, 9, 4096);
  EXPECT_EQ(ShadowLinks::RangeOf(page.EntryAt(9)),
            GfnRange::Of(Gfn(4096), 512));
}

}  // namespace
}  // namespace mmu
