// The walk over page tables that are not those of x86: the granule is 16 or 64
// KiB, and every bit of an entry has another meaning. Rules of all walks are
// tested with SPTEs, in paging/tdp_cursor_test.cc.

#include "mmu_core/paging/page_table_cursor.h"

#include <cstdint>
#include <memory>
#include <ostream>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/paging/entry_slot.h"
#include "mmu_core/paging/entry_table.h"
#include "mmu_core/paging/paging_traits.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

using ::testing::ElementsAre;

// An entry that has nothing in common with an SPTE:
//
//   bit  0    set: not present. So an entry of all zeros is present, and one
//             that was never used is not zero
//   bit  1    of one that is not present: frozen
//   bit  2    of one that is present: at level 1 it is a page, above it points
//             at a table. Clear, above level 1: it is a block
//   63:3      address >> 8
class ToyEntry {
 public:
  ToyEntry() = default;
  explicit ToyEntry(uint64_t bits) : bits_(bits) {}
  static ToyEntry Frozen() { return ToyEntry(0x3); }
  static ToyEntry Page(uint64_t address) { return ToyEntry(address >> 5 | 4); }
  static ToyEntry Block(uint64_t address) { return ToyEntry(address >> 5); }
  static ToyEntry Table(const void* table) {
    return ToyEntry(reinterpret_cast<uintptr_t>(table) >> 5 | 4);
  }

  uint64_t bits() const { return bits_; }
  bool IsPresent() const { return (bits_ & 1) == 0; }
  bool IsFrozen() const { return (bits_ & 3) == 3; }
  bool IsPresentLeaf(Level level) const {
    return IsPresent() && !IsPresentTable(level);
  }
  bool IsPresentTable(Level level) const {
    return IsPresent() && level > Level{1} && (bits_ & 4) != 0;
  }
  uint64_t address() const { return bits_ >> 3 << 8; }

  friend bool operator==(ToyEntry, ToyEntry) = default;

 private:
  uint64_t bits_ = 1;
};

template <int granule_shift>
struct ToyGeometry : Granule<granule_shift> {
  static constexpr Level kMaxLevel{3};
  static constexpr Level kMaxLeafLevel{2};
  static constexpr int kMaxRootTables = 4;
};

template <typename G>
struct ToyPaging {
  using Geometry = G;
  using Entry = ToyEntry;
  static EntryTable<G, ToyEntry>* TableOf(ToyEntry entry) {
    return reinterpret_cast<EntryTable<G, ToyEntry>*>(entry.address());
  }
};

using Toy16K = ToyPaging<ToyGeometry<14>>;
using Toy64K = ToyPaging<ToyGeometry<16>>;

static_assert(PageTableEntry<ToyEntry>);
static_assert(PagingTraits<Toy16K> && PagingTraits<Toy64K>);
// A type that does not fit into one word, or fits only by accident, is no
// entry.
static_assert(!PageTableEntry<uint64_t>);
static_assert(!PageTableEntry<std::pair<uint64_t, uint64_t>>);

static_assert(sizeof(EntrySlot<ToyEntry>) == 8);
static_assert(sizeof(PageTableCursor<Toy16K>::Table) == 16 << 10);
static_assert(alignof(PageTableCursor<Toy16K>::Table) == 16 << 10);
static_assert(sizeof(PageTableCursor<Toy64K>::Table) == 64 << 10);
static_assert(alignof(PageTableCursor<Toy64K>::Table) == 64 << 10);

// The position of an entry that a walk visits.
struct Seen {
  uint64_t gfn;
  int level;
  friend bool operator==(const Seen&, const Seen&) = default;
  friend auto operator<=>(const Seen&, const Seen&) = default;
  friend std::ostream& operator<<(std::ostream& os, const Seen& s) {
    return os << "{" << s.gfn << ", level " << s.level << "}";
  }
};

// Tables of ToyEntry, without a pool.
template <typename Traits>
class ToyTree {
 public:
  using G = typename Traits::Geometry;
  using Cursor = PageTableCursor<Traits>;
  using Table = typename Cursor::Table;

  explicit ToyTree(int root_tables = 1, Level root_level = Level{3})
      : root_tables_(root_tables), root_level_(root_level) {
    root_ = NewTables(root_tables);
  }

  Table* root() { return root_; }
  Gfn end() const {
    return Gfn(PagesPer<G>(root_level_) * G::kEntriesPerTable *
               static_cast<uint64_t>(root_tables_));
  }
  Cursor Walk(GfnRange range, Level min_level = Level{1}) {
    return Cursor(root_, root_level_, root_tables_, range, min_level);
  }

  // The entry of `level` for `gfn`; makes the tables above it.
  EntrySlot<ToyEntry>& At(Gfn gfn, Level level) {
    Table* table =
        root_ + gfn.value() / PagesPer<G>(root_level_) / G::kEntriesPerTable;
    for (Level l = root_level_; l > level; l = ChildOf(l)) {
      EntrySlot<ToyEntry>& slot = table->entries[IndexOf<G>(gfn, l)];
      if (!slot.Load().IsPresentTable(l)) {
        slot.Store(ToyEntry::Table(NewTables(1)));
      }
      table = Traits::TableOf(slot.Load());
    }
    return table->entries[IndexOf<G>(gfn, level)];
  }
  // Makes the entry of `level` for `gfn` a leaf that maps its range to the same
  // addresses.
  void Map(Gfn gfn, Level level) {
    const uint64_t address = ToGpa(RoundDown<G>(gfn, level)).value();
    At(gfn, level)
        .Store(level == Level{1} ? ToyEntry::Page(address)
                                 : ToyEntry::Block(address));
  }

  // The entries that a pre-order walk must visit, found by recursion.
  std::vector<Seen> Expected(GfnRange range, Level min_level) const {
    std::vector<Seen> all;
    Gfn base(0);
    for (int i = 0; i < root_tables_; ++i) {
      Recurse(root_[i], root_level_, base, range, min_level, all);
      base += PagesPer<G>(root_level_) * G::kEntriesPerTable;
    }
    return all;
  }

 private:
  static void Recurse(const Table& table, Level level, Gfn base, GfnRange range,
                      Level min_level, std::vector<Seen>& all) {
    for (uint64_t i = 0; i < G::kEntriesPerTable; ++i) {
      const Gfn gfn = base + i * PagesPer<G>(level);
      if (!GfnRange::Of(gfn, PagesPer<G>(level)).Overlaps(range)) continue;
      all.push_back({gfn.value(), ToInt(level)});
      const ToyEntry entry = table.entries[i].Load();
      if (level > min_level && entry.IsPresentTable(level)) {
        Recurse(*Traits::TableOf(entry), ChildOf(level), gfn, range, min_level,
                all);
      }
    }
  }

  Table* NewTables(int count) {
    tables_.push_back(std::make_unique<Table[]>(count));
    return tables_.back().get();
  }

  RcuReadGuard rcu_;  // for walks of the tree
  const int root_tables_;
  const Level root_level_;
  Table* root_;
  std::vector<std::unique_ptr<Table[]>> tables_;
};

template <typename Cursor>
std::vector<Seen> VisitedBy(Cursor c) {
  std::vector<Seen> all;
  for (; c.Valid(); c.Next())
    all.push_back({c.gfn().value(), ToInt(c.level())});
  return all;
}

template <typename T>
class PageTableCursorTest : public ::testing::Test {
 protected:
  using Tree = ToyTree<T>;
  using G = typename T::Geometry;
  static constexpr uint64_t kPage = PagesPer<G>(Level{1});
  static constexpr uint64_t kBlock = PagesPer<G>(Level{2});
  static constexpr uint64_t kTop = PagesPer<G>(Level{3});

  // Mappings of both sizes around the ends of blocks and of the root's tables.
  static void FillAtRandom(Tree& tree, std::mt19937_64& random) {
    for (int i = 0; i < 30; ++i) {
      const Gfn gfn = RandomGfn(tree, random);
      const Level level{static_cast<uint8_t>(1 + random() % 2)};
      tree.Map(gfn, level);
      if (random() % 5 == 0) {
        tree.At(gfn, level)
            .Store(random() % 2 == 0 ? ToyEntry() : ToyEntry::Frozen());
      }
    }
  }
  static Gfn RandomGfn(const Tree& tree, std::mt19937_64& random) {
    const uint64_t places[] = {0, kTop, tree.end().value() / 2,
                               tree.end().value() - 3 * kBlock};
    return Gfn(places[random() % 4] + random() % (3 * kBlock));
  }
  static GfnRange RandomRange(const Tree& tree, std::mt19937_64& random) {
    const uint64_t sizes[] = {1, kPage + 1, 50 * kPage, kBlock, 3 * kBlock};
    return GfnRange::Of(RandomGfn(tree, random),
                        1 + random() % sizes[random() % 5]);
  }
};

using Toys = ::testing::Types<Toy16K, Toy64K>;
TYPED_TEST_SUITE(PageTableCursorTest, Toys);

TYPED_TEST(PageTableCursorTest, ANewTableHasNoEntryThatIsPresent) {
  typename TestFixture::Tree tree;
  for (const EntrySlot<ToyEntry>& slot : tree.root()->entries) {
    ASSERT_EQ(slot.Load(), ToyEntry());
    ASSERT_NE(slot.Load().bits(), 0u);
  }
  tree.root()->FillUnpublished(ToyEntry::Frozen());
  EXPECT_TRUE(tree.root()->entries.back().Load().IsFrozen());
}

TYPED_TEST(PageTableCursorTest, RandomTreesAreWalkedAsARecursionWould) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 40; ++round) {
    typename TestFixture::Tree tree(1 << round % 3);
    this->FillAtRandom(tree, random);
    for (int i = 0; i < 8; ++i) {
      const GfnRange range = this->RandomRange(tree, random);
      const Level min_level{static_cast<uint8_t>(1 + random() % 3)};
      const std::vector<Seen> expected = tree.Expected(range, min_level);
      ASSERT_EQ(VisitedBy(tree.Walk(range, min_level)), expected)
          << "round " << round << " " << range;
      ASSERT_EQ(std::set<Seen>(expected.begin(), expected.end()).size(),
                expected.size());
    }
  }
}

TYPED_TEST(PageTableCursorTest, ARangeMayBeginAndEndInsideOfALeaf) {
  constexpr uint64_t kPage = TestFixture::kPage;
  typename TestFixture::Tree tree;
  tree.Map(Gfn(0), Level{1});
  tree.Map(Gfn(kPage), Level{1});
  // From the last gfn of the first granule to the first of the third.
  const GfnRange range = {Gfn(kPage - 1), Gfn(2 * kPage + 1)};
  EXPECT_THAT(VisitedBy(tree.Walk(range)),
              ElementsAre(Seen{0, 3}, Seen{0, 2}, Seen{0, 1}, Seen{kPage, 1},
                          Seen{2 * kPage, 1}));
  // One gfn in the middle of a granule.
  EXPECT_THAT(VisitedBy(tree.Walk(GfnRange::Of(Gfn(kPage + 1), 1))),
              ElementsAre(Seen{0, 3}, Seen{0, 2}, Seen{kPage, 1}));

  auto c = tree.Walk(GfnRange::Of(Gfn(kPage + 1), 1));
  c.DescendToFirst();
  EXPECT_EQ(c.gfn(), Gfn(kPage));
  EXPECT_EQ(c.entry_range(), GfnRange::Of(Gfn(kPage), kPage));
  EXPECT_EQ(&c.slot(), &tree.At(Gfn(kPage), Level{1}));
  EXPECT_TRUE(c.IsPresentLeaf());
  EXPECT_EQ(c.old_spte().address(), kPage << kPageShift);
  EXPECT_EQ(c.EntriesLeft(), 1);
}

TYPED_TEST(PageTableCursorTest, AnEntryIsALeafOrATableAsItsFormatAndLevelSay) {
  constexpr uint64_t kBlock = TestFixture::kBlock;
  typename TestFixture::Tree tree;
  // The same bits are a table at level 2 and a page at level 1.
  EntrySlot<ToyEntry>& page = tree.At(Gfn(0), Level{1});
  page.Store(tree.At(Gfn(0), Level{2}).Load());
  tree.Map(Gfn(kBlock), Level{2});
  tree.At(Gfn(2 * kBlock), Level{2}).Store(ToyEntry::Frozen());
  std::vector<Seen> leafs;
  std::vector<Seen> tables;
  std::vector<Seen> frozen;
  for (auto c = tree.Walk({Gfn(0), Gfn(4 * kBlock)}); c.Valid(); c.Next()) {
    const Seen seen = {c.gfn().value(), ToInt(c.level())};
    if (c.IsPresentLeaf()) leafs.push_back(seen);
    if (c.IsPresentTable()) tables.push_back(seen);
    if (c.old_spte().IsFrozen()) frozen.push_back(seen);
  }
  EXPECT_THAT(leafs, ElementsAre(Seen{0, 1}, Seen{kBlock, 2}));
  EXPECT_THAT(tables, ElementsAre(Seen{0, 3}, Seen{0, 2}));
  EXPECT_THAT(frozen, ElementsAre(Seen{2 * kBlock, 2}));
}

TYPED_TEST(PageTableCursorTest, TheWalkStopsAtTheMinimumLevelUntilItIsLowered) {
  constexpr uint64_t kPage = TestFixture::kPage;
  constexpr uint64_t kBlock = TestFixture::kBlock;
  typename TestFixture::Tree tree;
  tree.Map(Gfn(0), Level{1});
  tree.Map(Gfn(kBlock), Level{1});
  const GfnRange range = {Gfn(3), Gfn(kBlock + 1)};
  EXPECT_THAT(VisitedBy(tree.Walk(range, Level{2})),
              ElementsAre(Seen{0, 3}, Seen{0, 2}, Seen{kBlock, 2}));
  auto c = tree.Walk({Gfn(kBlock - 1), Gfn(kBlock + kPage + 1)}, Level{2});
  while (c.gfn() != Gfn(kBlock)) c.Next();
  c.LowerMinLevel(Level{1});
  c.Next();
  EXPECT_THAT(VisitedBy(c),
              ElementsAre(Seen{kBlock, 1}, Seen{kBlock + kPage, 1}));
}

TYPED_TEST(PageTableCursorTest, SkippingToTheLastEntryCountsEntriesAndNotGfns) {
  constexpr uint64_t kPage = TestFixture::kPage;
  constexpr uint64_t kBlock = TestFixture::kBlock;
  typename TestFixture::Tree tree;
  tree.Map(Gfn(0), Level{1});
  tree.Map(Gfn(kBlock), Level{1});
  // From within the third granule from the end of a table to within the second
  // granule of the next table.
  const GfnRange range = {Gfn(kBlock - 2 * kPage - 1), Gfn(kBlock + kPage + 1)};
  std::vector<std::pair<uint64_t, int>> pieces;
  for (auto c = tree.Walk(range); c.Valid(); c.Next()) {
    if (c.level() > Level{1}) continue;
    pieces.push_back({c.gfn().value(), c.EntriesLeft()});
    c.SkipToLastEntry();
    EXPECT_EQ(&c.slot(), &tree.At(c.gfn(), Level{1}));
    EXPECT_EQ(c.EntriesLeft(), 1);
  }
  EXPECT_THAT(pieces, ElementsAre(std::pair(kBlock - 3 * kPage, 3),
                                  std::pair(kBlock, 2)));
}

TYPED_TEST(PageTableCursorTest,
           AfterAYieldTheWalkComesDownToTheGranuleItWasAt) {
  constexpr uint64_t kPage = TestFixture::kPage;
  typename TestFixture::Tree tree;
  tree.Map(Gfn(0), Level{1});
  auto c = tree.Walk({Gfn(1), Gfn(2 * kPage + 1)});
  c.DescendToFirst();
  EXPECT_EQ(c.next_last_level_gfn(), Gfn(1));
  EXPECT_FALSE(c.MayYield()) << "nothing was done yet";
  c.Next();
  EXPECT_EQ(c.next_last_level_gfn(), Gfn(kPage)) << "a granule further";
  EXPECT_TRUE(c.MayYield());
  c.MarkYielded();
  c.Next();
  EXPECT_FALSE(c.MayYield());
  EXPECT_THAT(VisitedBy(c), ElementsAre(Seen{0, 3}, Seen{0, 2}, Seen{kPage, 1},
                                        Seen{2 * kPage, 1}));
}

TYPED_TEST(PageTableCursorTest, YieldsSkipNoEntryAndRepeatNoLeaf) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 40; ++round) {
    typename TestFixture::Tree tree(1 << round % 3);
    this->FillAtRandom(tree, random);
    const GfnRange range = this->RandomRange(tree, random);
    std::vector<Seen> all;
    std::vector<Seen> bottoms;
    for (auto c = tree.Walk(range); c.Valid(); c.Next()) {
      if (c.MayYield() && random() % 3 == 0) {
        c.MarkYielded();
        continue;
      }
      all.push_back({c.gfn().value(), ToInt(c.level())});
      if (!c.IsPresentTable()) bottoms.push_back(all.back());
    }
    const std::vector<Seen> expected = tree.Expected(range, Level{1});
    ASSERT_EQ(std::set<Seen>(all.begin(), all.end()),
              std::set<Seen>(expected.begin(), expected.end()))
        << "round " << round << " " << range;
    ASSERT_EQ(std::set<Seen>(bottoms.begin(), bottoms.end()).size(),
              bottoms.size());
  }
}

TYPED_TEST(PageTableCursorTest, ARootOfSeveralTablesIsWalkedAsOne) {
  constexpr uint64_t kPage = TestFixture::kPage;
  constexpr uint64_t kBlock = TestFixture::kBlock;
  // One of the two tables of level 2. One table of level 3 with two entries
  // maps the same.
  constexpr uint64_t kHalf = TestFixture::kTop;
  typename TestFixture::Tree tree(2, Level{2});
  ASSERT_EQ(tree.end(), Gfn(2 * kHalf));
  tree.Map(Gfn(kHalf - kPage), Level{1});
  tree.Map(Gfn(kHalf), Level{1});
  EXPECT_THAT(VisitedBy(tree.Walk({Gfn(kHalf - 1), Gfn(kHalf + 1)})),
              ElementsAre(Seen{kHalf - kBlock, 2}, Seen{kHalf - kPage, 1},
                          Seen{kHalf, 2}, Seen{kHalf, 1}));
  // A walk that begins in the second table, and one that yields there.
  auto c = tree.Walk({Gfn(kHalf + 1), Gfn(kHalf + 2 * kPage)});
  EXPECT_EQ(&c.slot(), &tree.root()[1].entries[0]);
  c.DescendToFirst();
  c.Next();
  c.MarkYielded();
  c.Next();
  EXPECT_THAT(VisitedBy(c),
              ElementsAre(Seen{kHalf, 2}, Seen{kHalf + kPage, 1}));
}

TYPED_TEST(PageTableCursorTest, AWalkOfEveryFrameThereCouldBeEndsWithTheRoot) {
  for (const int root_tables : {1, 2, 4}) {
    typename TestFixture::Tree tree(root_tables, Level{2});
    const GfnRange all = {Gfn(0), Gfn(~uint64_t{0})};
    const std::vector<Seen> seen = VisitedBy(tree.Walk(all));
    EXPECT_EQ(seen, tree.Expected(all, Level{1}));
    EXPECT_EQ(seen.back(), (Seen{tree.end().value() - TestFixture::kBlock, 2}));
    EXPECT_FALSE(tree.Walk({tree.end(), all.end}).Valid());
    EXPECT_FALSE(tree.Walk({all.end - 1, all.end}).Valid());
  }
}

#ifndef NDEBUG
// Covers: TDP-30
TEST(PageTableCursorDeathTest, AWalkNeedsAReadSection) {
  // The child starts a thread. ThreadSanitizer forbids that after a plain fork.
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  ToyTree<Toy16K> tree;
  tree.Walk({Gfn(0), tree.end()});
  EXPECT_DEATH(std::thread([&tree] {
                 tree.Walk({Gfn(0), tree.end()});
               }).join(),
               "InRcuReadSection");
}
#endif

}  // namespace
}  // namespace mmu
