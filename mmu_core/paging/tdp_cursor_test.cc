#include "mmu_core/paging/tdp_cursor.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <ostream>
#include <random>
#include <set>
#include <type_traits>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// The generic walk uses SPTEs directly, without a cost in types or sizes.
static_assert(
    std::is_same_v<decltype(std::declval<TdpCursor>().slot()), SpteSlot&>);
static_assert(std::is_same_v<TdpCursor::Entry, Spte>);
static_assert(std::is_same_v<TdpCursor::Table, PageTable>);
static_assert(std::is_trivially_copyable_v<Spte> && sizeof(Spte) == 8);
static_assert(sizeof(SpteSlot) == 8 && alignof(SpteSlot) == 8);
static_assert(sizeof(PageTable) == 4096 && alignof(PageTable) == 4096);
static_assert(sizeof(TdpCursor) == 144);
// A root is one table, so the walk has no root tables to choose from.
static_assert(X86Paging::Geometry::kMaxRootTables == 1);

constexpr uint64_t k2MPages = PagesPer(Level::k2M);
constexpr uint64_t k1GPages = PagesPer(Level::k1G);
constexpr uint64_t k512GPages = PagesPer(Level::k512G);

// The position of an entry that a walk visits.
struct Seen {
  uint64_t gfn;
  Level level;
  friend bool operator==(const Seen&, const Seen&) = default;
  friend auto operator<=>(const Seen&, const Seen&) = default;
  friend std::ostream& operator<<(std::ostream& os, const Seen& s) {
    return os << "{0x" << std::hex << s.gfn << std::dec << ", "
              << PageSizeName(s.level) << "}";
  }
};

// Tables without a VM.
class Tree {
 public:
  explicit Tree(Level root_level = Level::k512G)
      : root_level_(root_level), root_(NewTable()) {}
  ~Tree() {
    for (ShadowPage* page : pages_) pool_.Return(page);
  }

  PageTable* root() { return root_; }
  Level root_level() const { return root_level_; }

  // The entry of `level` for `gfn`; makes the tables above it.
  SpteSlot& At(Gfn gfn, Level level) {
    PageTable* table = root_;
    for (Level l = root_level_; l > level; l = ChildOf(l)) {
      SpteSlot& slot = table->entries[IndexOf(gfn, l)];
      if (!slot.Load().IsPresentTable(l)) Link(slot);
      table = TableOf(slot.Load());
    }
    return table->entries[IndexOf(gfn, level)];
  }
  void Map(Gfn gfn, Level level) { At(gfn, level).Store(LeafAt(gfn, level)); }
  static Spte LeafAt(Gfn gfn, Level level) {
    return SpteFormat::Ept().MakeLeaf(
        {.level = level, .pfn = Pfn(RoundDown(gfn, level).value())});
  }
  PageTable* Link(SpteSlot& slot) {
    PageTable* table = NewTable();
    slot.Store(SpteFormat::Ept().MakeTable(reinterpret_cast<uint64_t>(table)));
    return table;
  }

  // The entries that a pre-order walk must visit, found by recursion.
  std::vector<Seen> Walk(GfnRange range, Level min_level) const {
    std::vector<Seen> all;
    Recurse(*root_, root_level_, Gfn(0), range, min_level, all);
    return all;
  }

 private:
  static void Recurse(const PageTable& table, Level level, Gfn base,
                      GfnRange range, Level min_level, std::vector<Seen>& all) {
    for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
      const Gfn gfn = base + i * PagesPer(level);
      if (!GfnRange::Of(gfn, PagesPer(level)).Overlaps(range)) continue;
      all.push_back({gfn.value(), level});
      const Spte spte = table.entries[i].Load();
      if (level > min_level && spte.IsPresentTable(level)) {
        Recurse(*TableOf(spte), ChildOf(level), gfn, range, min_level, all);
      }
    }
  }

  PageTable* NewTable() {
    pages_.push_back(pool_.Take(1).head);
    pages_.back()->table->FillUnpublished(Spte::Initial());
    return pages_.back()->table;
  }

  RcuReadGuard rcu_;  // for walks of the tree
  TablePool pool_;
  std::vector<ShadowPage*> pages_;
  const Level root_level_;
  PageTable* root_;
};

std::vector<Seen> VisitedBy(Tree& tree, GfnRange range, Level min_level) {
  std::vector<Seen> all;
  for (TdpCursor c(tree.root(), tree.root_level(), range, min_level); c.Valid();
       c.Next()) {
    all.push_back({c.gfn().value(), c.level()});
  }
  return all;
}

// A tree with mappings of all sizes in the first few GiB and at the end.
void FillAtRandom(Tree& tree, std::mt19937_64& random) {
  const uint64_t end =
      k512GPages * (tree.root_level() == Level::k256T ? 512 : 1);
  for (int i = 0; i < 60; ++i) {
    const uint64_t near_ = random() % (4 * k1GPages);
    const Gfn gfn(i % 3 == 0 ? end - 1 - near_ : near_);
    const auto level = static_cast<Level>(1 + random() % 3);
    SpteSlot& slot = tree.At(gfn, level);
    if (random() % 5 == 0) {
      slot.Store(random() % 2 == 0 ? Spte::Initial() : Spte::Frozen());
    } else {
      slot.Store(Tree::LeafAt(gfn, level));
    }
  }
}

GfnRange RandomRange(std::mt19937_64& random) {
  const Gfn start(random() % (4 * k1GPages));
  const uint64_t sizes[] = {1, 3, 512, 700, k1GPages, 5 * k1GPages};
  return GfnRange::Of(start, 1 + random() % sizes[random() % 6]);
}

// Covers: TDP-10
TEST(TdpCursorTest, ParentsComeBeforeTheirChildrenAndEachEntryOnce) {
  Tree tree;
  tree.Map(Gfn(1), Level::k4K);
  tree.Map(Gfn(512), Level::k2M);
  EXPECT_THAT(VisitedBy(tree, {Gfn(0), Gfn(3)}, Level::k4K),
              ElementsAre(Seen{0, Level::k512G}, Seen{0, Level::k1G},
                          Seen{0, Level::k2M}, Seen{0, Level::k4K},
                          Seen{1, Level::k4K}, Seen{2, Level::k4K}));
  EXPECT_THAT(VisitedBy(tree, {Gfn(511), Gfn(514)}, Level::k4K),
              ElementsAre(Seen{0, Level::k512G}, Seen{0, Level::k1G},
                          Seen{0, Level::k2M}, Seen{511, Level::k4K},
                          Seen{512, Level::k2M}));
}

// Covers: TDP-10, TDP-11, TDP-13
TEST(TdpCursorTest, RandomTreesAreWalkedAsARecursionWould) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 150; ++round) {
    Tree tree(round % 4 == 0 ? Level::k256T : Level::k512G);
    FillAtRandom(tree, random);
    for (int i = 0; i < 8; ++i) {
      const GfnRange range = RandomRange(random);
      const auto min_level = static_cast<Level>(1 + random() % 4);
      const std::vector<Seen> expected = tree.Walk(range, min_level);
      ASSERT_EQ(VisitedBy(tree, range, min_level), expected)
          << "round " << round << " " << range;
      ASSERT_EQ(std::set<Seen>(expected.begin(), expected.end()).size(),
                expected.size());
    }
  }
}

// Covers: TDP-11
TEST(TdpCursorTest, TheWalkCrossesFromOneTableToTheNext) {
  Tree tree;
  tree.Map(Gfn(k1GPages - 1), Level::k4K);
  tree.Map(Gfn(k1GPages), Level::k4K);
  EXPECT_THAT(
      VisitedBy(tree, {Gfn(k1GPages - 2), Gfn(k1GPages + 1)}, Level::k4K),
      ElementsAre(Seen{0, Level::k512G}, Seen{0, Level::k1G},
                  Seen{k1GPages - k2MPages, Level::k2M},
                  Seen{k1GPages - 2, Level::k4K},
                  Seen{k1GPages - 1, Level::k4K}, Seen{k1GPages, Level::k1G},
                  Seen{k1GPages, Level::k2M}, Seen{k1GPages, Level::k4K}));
}

// Covers: TDP-11
TEST(TdpCursorTest, ATableUnlinkedSinceTheSnapshotIsNotEntered) {
  Tree tree;
  tree.Map(Gfn(3), Level::k4K);
  std::vector<Seen> seen;
  for (TdpCursor c(tree.root(), Level::k512G, {Gfn(0), Gfn(600)}, Level::k4K);
       c.Valid(); c.Next()) {
    seen.push_back({c.gfn().value(), c.level()});
    if (c.level() == Level::k2M && c.gfn() == Gfn(0)) {
      ASSERT_TRUE(c.IsPresentTable());
      tree.At(Gfn(0), Level::k2M).Store(Spte::Initial());
      ASSERT_TRUE(c.IsPresentTable()) << "the snapshot stays";
    }
  }
  EXPECT_THAT(seen, ElementsAre(Seen{0, Level::k512G}, Seen{0, Level::k1G},
                                Seen{0, Level::k2M}, Seen{512, Level::k2M}));
}

TEST(TdpCursorTest, ATableLinkedSinceTheSnapshotIsEntered) {
  Tree tree;
  int small = 0;
  for (TdpCursor c(tree.root(), Level::k512G, {Gfn(0), Gfn(2)}, Level::k4K);
       c.Valid(); c.Next()) {
    if (c.level() == Level::k4K) {
      ++small;
    } else {
      tree.Link(c.slot());
    }
  }
  EXPECT_EQ(small, 2);
}

// Covers: TDP-12
TEST(TdpCursorTest, OnlyASideStepMovesTheTargetAndSoAllowsAYield) {
  Tree tree;
  tree.Map(Gfn(5), Level::k4K);
  TdpCursor c(tree.root(), Level::k512G, {Gfn(5), Gfn(8)}, Level::k4K);
  for (Level level = Level::k512G; level > Level::k4K; level = ChildOf(level)) {
    EXPECT_EQ(c.level(), level);
    EXPECT_EQ(c.next_last_level_gfn(), Gfn(5)) << "down keeps it";
    EXPECT_FALSE(c.MayYield());
    c.Next();
  }
  EXPECT_EQ(c.gfn(), Gfn(5));
  EXPECT_FALSE(c.MayYield()) << "nothing was done yet";
  c.Next();
  EXPECT_EQ(c.next_last_level_gfn(), Gfn(6));
  EXPECT_TRUE(c.MayYield());
  c.MarkYielded();
  c.Next();
  EXPECT_EQ(c.next_last_level_gfn(), Gfn(6));
  EXPECT_FALSE(c.MayYield()) << "not again before another step";
}

// Covers: TDP-13
TEST(TdpCursorTest, EntriesThatOverlapTheRangeBeginBelowIt) {
  Tree tree;
  tree.Map(Gfn(0), Level::k1G);
  TdpCursor c(tree.root(), Level::k512G, GfnRange::Of(Gfn(700), 4), Level::k4K);
  c.Next();
  ASSERT_TRUE(c.Valid());
  EXPECT_EQ(c.level(), Level::k1G);
  EXPECT_EQ(c.gfn(), Gfn(0));
  EXPECT_LT(c.gfn(), c.range().start);
  EXPECT_TRUE(c.entry_range().Contains(c.range()));
  c.Next();
  EXPECT_FALSE(c.Valid());
}

TEST(TdpCursorTest, AnEmptyRangeHasNoEntries) {
  Tree tree;
  EXPECT_THAT(VisitedBy(tree, {Gfn(5), Gfn(5)}, Level::k4K), IsEmpty());
  EXPECT_THAT(VisitedBy(tree, {Gfn(9), Gfn(5)}, Level::k4K), IsEmpty());
}

// Covers: TDP-15
TEST(TdpCursorTest, AWalkOfEveryFrameThereCouldBeEndsWithTheRoot) {
  for (const Level root_level : {Level::k512G, Level::k256T}) {
    Tree tree(root_level);
    const Gfn last(PagesPer(root_level) * kEntriesPerTable - 1);
    tree.Map(last, Level::k4K);
    const GfnRange all = {Gfn(0), Gfn(~uint64_t{0})};
    const std::vector<Seen> seen = VisitedBy(tree, all, Level::k4K);
    EXPECT_EQ(seen, tree.Walk(all, Level::k4K));
    EXPECT_EQ(seen.back(), (Seen{last.value(), Level::k4K}));
    EXPECT_THAT(VisitedBy(tree, {last + 1, Gfn(~uint64_t{0})}, Level::k4K),
                IsEmpty());
  }
}

TEST(TdpCursorTest, SkippingToTheLastEntryGoesOnBehindTheTable) {
  Tree tree;
  for (const uint64_t gfn : {uint64_t{0}, k2MPages, 2 * k2MPages}) {
    tree.Map(Gfn(gfn), Level::k4K);
  }
  // The first gfn and the number of entries of each piece of a table that the
  // walk passes in one step.
  std::vector<std::pair<uint64_t, int>> pieces;
  const GfnRange range = {Gfn(500), Gfn(2 * k2MPages + 3)};
  for (TdpCursor c(tree.root(), tree.root_level(), range, Level::k4K);
       c.Valid(); c.Next()) {
    if (c.level() != Level::k4K) continue;
    const int entries = c.EntriesLeft();
    pieces.push_back({c.gfn().value(), entries});
    c.SkipToLastEntry();
    EXPECT_EQ(c.gfn(), Gfn(pieces.back().first + entries - 1));
    EXPECT_EQ(c.EntriesLeft(), 1);
    EXPECT_EQ(&c.slot(), &tree.At(c.gfn(), Level::k4K));
    EXPECT_EQ(c.next_last_level_gfn(), c.gfn());
  }
  EXPECT_THAT(pieces, ElementsAre(std::pair(500, 12), std::pair(k2MPages, 512),
                                  std::pair(2 * k2MPages, 3)));
}

// Covers: TDP-14
TEST(TdpCursorTest, AfterAYieldTheWalkComesDownFromTheRootToWhereItWas) {
  Tree tree;
  tree.Map(Gfn(5), Level::k4K);
  TdpCursor c(tree.root(), Level::k512G, {Gfn(5), Gfn(8)}, Level::k4K);
  while (c.level() != Level::k4K) c.Next();
  c.Next();
  ASSERT_EQ(c.gfn(), Gfn(6));
  c.MarkYielded();
  EXPECT_TRUE(c.yielded());
  std::vector<Seen> seen;
  for (c.Next(); c.Valid(); c.Next()) {
    EXPECT_FALSE(c.yielded());
    seen.push_back({c.gfn().value(), c.level()});
  }
  EXPECT_THAT(seen, ElementsAre(Seen{0, Level::k512G}, Seen{0, Level::k1G},
                                Seen{0, Level::k2M}, Seen{6, Level::k4K},
                                Seen{7, Level::k4K}));
}

struct Work {
  std::map<Seen, int> times;      // how often the walk met each entry
  std::vector<GfnRange> bottoms;  // ranges of the entries without a table below
};

// Walks and yields wherever `yield` returns true and a yield is allowed. Runs
// `meanwhile` in every yield.
template <typename Yield, typename Meanwhile>
Work WalkYielding(Tree& tree, GfnRange range, Level min_level, Yield yield,
                  Meanwhile meanwhile) {
  Work work;
  uint64_t yields = 0;
  std::set<uint64_t> targets;
  for (TdpCursor c(tree.root(), tree.root_level(), range, min_level); c.Valid();
       c.Next()) {
    targets.insert(c.next_last_level_gfn().value());
    if (c.MayYield() && yield()) {
      ++yields;
      c.MarkYielded();
      meanwhile(c.next_last_level_gfn());
      continue;
    }
    ++work.times[{c.gfn().value(), c.level()}];
    if (c.level() == min_level || !c.IsPresentTable()) {
      work.bottoms.push_back(c.entry_range());
    }
  }
  // The walk yields at most once between two steps.
  EXPECT_LE(yields, targets.size());
  return work;
}

// Covers: TDP-14, TDP-20
TEST(TdpCursorTest, YieldsSkipNothingAndRepeatOnlyTablesOnTheWayDown) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 150; ++round) {
    Tree tree;
    FillAtRandom(tree, random);
    const GfnRange range = RandomRange(random);
    const auto min_level = static_cast<Level>(1 + random() % 3);
    // In round 0 the walk yields at every chance.
    const uint64_t one_in = 1 + round % 5;
    const std::map<Seen, int> worked_on =
        WalkYielding(
            tree, range, min_level, [&] { return random() % one_in == 0; },
            [](Gfn) {})
            .times;
    const std::vector<Seen> expected = tree.Walk(range, min_level);
    ASSERT_EQ(worked_on.size(), expected.size());
    for (const Seen& entry : expected) {
      const auto it = worked_on.find(entry);
      ASSERT_NE(it, worked_on.end()) << entry << " was skipped";
      const Spte spte = tree.At(Gfn(entry.gfn), entry.level).Load();
      if (entry.level == min_level || !spte.IsPresentTable(entry.level)) {
        ASSERT_EQ(it->second, 1) << entry << " in " << range;
      }
    }
  }
}

// Covers: TDP-14
TEST(TdpCursorTest, NoPageIsSkippedThoughTablesComeAndGoDuringYields) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 100; ++round) {
    Tree tree;
    const GfnRange range =
        GfnRange::Of(Gfn(random() % 4096), 1 + random() % 4096);
    for (uint64_t gfn = 0; gfn < 8192; gfn += k2MPages) {
      if (random() % 2 == 0) tree.Map(Gfn(gfn), Level::k2M);
      if (random() % 3 == 0) tree.Map(Gfn(gfn + random() % 512), Level::k4K);
    }
    const Work work = WalkYielding(
        tree, range, Level::k4K, [&] { return random() % 16 == 0; },
        [&](Gfn target) {
          // Changes a table near the gfn at which the walk continues.
          const Gfn gfn = target + random() % 3 * k2MPages;
          SpteSlot& slot = tree.At(gfn, Level::k2M);
          if (slot.Load().IsPresentTable(Level::k2M)) {
            slot.Store(random() % 2 == 0 ? Tree::LeafAt(gfn, Level::k2M)
                                         : Spte::Initial());
          } else {
            tree.Link(slot);
          }
        });
    Gfn covered = range.start;
    for (const GfnRange& bottom : work.bottoms) {
      ASSERT_LE(bottom.start, covered) << "skipped in " << range;
      covered = std::max(covered, bottom.end);
    }
    ASSERT_GE(covered, range.end);
  }
}

#ifndef NDEBUG
// Covers: TDP-22
TEST(TdpCursorDeathTest, TheEntryOfAYieldedCursorMayNotBeTouched) {
  Tree tree;
  TdpCursor c(tree.root(), Level::k512G, {Gfn(0), Gfn(8)}, Level::k4K);
  c.MarkYielded();
  EXPECT_DEATH(c.slot(), "yielded");
}
#endif

}  // namespace
}  // namespace mmu
