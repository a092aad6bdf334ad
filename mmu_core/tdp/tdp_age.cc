// Testing and clearing Accessed bits, under RCU alone (AGE-10..17).
//
// A processor sets Accessed in each entry that its walk passes, from the root
// down. So an entry without it points at a table that no walk has passed since
// the bit was cleared, and if the number of its leafs is known, all of them are
// old and the table is not read (AgeScan::kWalkedTables). This is done for
// tables of small pages only: they are nearly all tables.
//
// RACE-55, a walk against an ageing of the table:
//
//   processor                           ageing
//   W1 sets A in the table's entry      R2 clears A in the table's entry
//   W2 sets A in the leaf               R3 puts a token in place of the number
//                                       R4 reads and clears A in the leafs
//                                       R5 puts the number in place of the
//                                       token
//
// R2 comes before R4: otherwise a walk that passes between them would set A in
// a leaf, lose it above, and be seen by no later ageing. A walk with W1 before
// R2 and W2 after R4 is seen late: its page is young below an entry without A.
// The next ageing calls the page old, as if the access had come before R4, and
// the first walk after that repairs it. The same holds for a walk that begins
// in the processor's cache of table pointers, until a flush.
//
// R2 is one compare-exchange: a frozen entry, or one that points elsewhere now,
// must not lose a bit.

#include <algorithm>
#include <cstdint>

#include "mmu_core/aging/age_entries.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/known_leaf_count.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"

namespace mmu {
namespace {

// Makes one attempt. If the entry changed meanwhile, the page was young
// nevertheless, and the other thread's value stays (AGE-13). An atomic AND
// would not do: it would clear a bit of a frozen entry.
void TryClear(SpteSlot& slot, Spte expected, const SpteFormat& format) {
  const Spte wanted = format.WithoutAccessed(expected);
  AtHook(HookPoint::kAgeToExchange);
  slot.CompareExchange(expected, wanted);
}

// One ageing of one root. REQUIRES: an RCU read section.
class RootAger {
 public:
  RootAger(const SpteFormat& format, GfnRange range, AgeMode mode,
           AgeResult& result)
      : format_(format),
        range_(range),
        mode_(mode),
        result_(result),
        bits_of_({spte_bits::kMmuPresent, format.accessed_mask()}) {}

  // From the cursor's entry on, leaves out the tables of small pages that no
  // walk has passed, up to the first other entry of the cursor's table. Their
  // pages are old. Advances past them and returns their number.
  int LeaveOutTables(TdpCursor& cursor) {
    const SpteSlot* const first = &cursor.slot();
    const int whole = WholeEntriesFrom(cursor);
    uint64_t old = 0;
    int tables = 0;
    for (; tables < whole; ++tables) {
      const Spte spte = first[tables].Load();
      if (!spte.IsPresentTable(Level::k2M) || format_.IsAccessed(spte)) break;
      if (tables + kTablesAhead < whole) Prefetch(first[tables + kTablesAhead]);
      const int leafs = CountBelow(spte).KnownOr(-1);
      if (leafs < 0) break;
      old += static_cast<uint64_t>(leafs);
    }
    if (tables == 0) return 0;
    result_.old_page_count += old;
    cursor.SkipSideways(tables - 1);
    cursor.NextAfterLeaf();
    return tables;
  }

  // If the cursor's entry points at a table of small pages, which are all in
  // the range, ages these, counts them and advances. False if the entry does
  // not, or has changed: then nothing has happened. REQUIRES: the mode clears.
  bool AgeTable(TdpCursor& cursor, KnownLeafCount::Token token) {
    const Spte spte = cursor.old_spte();
    if (!spte.IsPresentTable(Level::k2M) || WholeEntriesFrom(cursor) == 0) {
      return false;
    }
    if (format_.IsAccessed(spte) && !TryClearAbove(cursor.slot(), spte)) {
      return false;
    }
    AtHook(HookPoint::kClearToToken);
    KnownLeafCount& count = CountBelow(spte);
    count.BeginCount(token);
    AtHook(HookPoint::kTokenToScan);
    const uint64_t before = PagesSoFar();
    AgeSmallPages(TableOf(spte)->entries.data(), kEntriesPerTable,
                  cursor.gfn());
    AtHook(HookPoint::kScanToCount);
    count.EndCount(token, static_cast<int>(PagesSoFar() - before));
    cursor.NextAfterLeaf();
    return true;
  }

  void AgeSmallPages(SpteSlot* first, int count, Gfn gfn) {
    AgeEntries<1>(
        first, count, gfn - result_.start, bits_of_, mode_, result_,
        [this](SpteSlot& slot, Spte spte) { TryClear(slot, spte, format_); });
  }

  void AgeHugePage(TdpCursor& cursor) {
    AgeLeaf(
        cursor, range_, format_.IsAccessed(cursor.old_spte()), mode_, result_,
        [this](SpteSlot& slot, Spte spte) { TryClear(slot, spte, format_); });
  }

 private:
  static KnownLeafCount& CountBelow(Spte spte) {
    return TablePool::DescriptorOf(TableOf(spte))->leaf_count;
  }

  // The numbers of tables that are left out lie in as many cache lines, and
  // waiting for them is most of the work.
  static constexpr int kTablesAhead = 16;
  static void Prefetch(const SpteSlot& slot) {
    const Spte spte = slot.Load();
    if (spte.IsPresentTable(Level::k2M)) __builtin_prefetch(&CountBelow(spte));
  }

  // How many entries of the cursor's table, from the cursor on, lie in the
  // range with all their pages.
  int WholeEntriesFrom(const TdpCursor& cursor) const {
    if (cursor.gfn() < range_.start) return 0;
    const uint64_t whole =
        (range_.end - cursor.gfn()) / PagesPer(cursor.level());
    return static_cast<int>(
        std::min(whole, static_cast<uint64_t>(cursor.EntriesLeft())));
  }

  bool TryClearAbove(SpteSlot& slot, Spte expected) const {
    const Spte wanted = expected.Without(format_.accessed_mask());
    AtHook(HookPoint::kParentToClear);
    return slot.CompareExchange(expected, wanted);
  }

  uint64_t PagesSoFar() const {
    return result_.old_page_count + result_.young_page_count;
  }

  const SpteFormat& format_;
  const GfnRange range_;
  const AgeMode mode_;
  AgeResult& result_;
  const AgeBits bits_of_;
};

}  // namespace

void TdpMmu::Age(int as_id, GfnRange range, AgeMode mode, AgeScan scan,
                 AgeResult& result, MmuCost* cost) const {
  // A bitmap of mapped pages can only be made from the leafs.
  const bool by_tables = scan == AgeScan::kWalkedTables &&
                         parts_.format.has_ad() && result.mapped.empty();
  const bool counts = by_tables && mode == AgeMode::kTestAndClear;
  const KnownLeafCount::Token token =
      counts ? age_tokens_.Next() : KnownLeafCount::Token();
  RootAger ager(parts_.format, range, mode, result);
  int64_t visited = 0;
  RcuReadGuard rcu;
  for (TdpRoot* root = roots_.FirstRcu(RootFilter::kValid, as_id);
       root != nullptr;
       root = roots_.NextRcu(root, RootFilter::kValid, as_id)) {
    TdpCursor c(root->table(), root->level(), range, Level::k4K);
    while (c.Valid()) {
      if (by_tables && c.level() == Level::k2M) {
        if (const int tables = ager.LeaveOutTables(c); tables > 0) {
          visited += tables;
          continue;
        }
        if (counts && ager.AgeTable(c, token)) {
          visited += 1 + kEntriesPerTable;
          continue;
        }
      }
      if (c.level() == Level::k4K) {
        const int entries = c.EntriesLeft();
        ager.AgeSmallPages(&c.slot(), entries, c.gfn());
        c.SkipToLastEntry();
        visited += entries;
        c.NextAfterLeaf();
        continue;
      }
      ++visited;
      if (c.IsPresentLeaf()) {
        ager.AgeHugePage(c);
      } else {
        c.Next();
      }
    }
  }
  if (cost != nullptr) cost->sptes_visited_count += visited;
}

}  // namespace mmu
