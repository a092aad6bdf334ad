// Restoring huge pages in place (TDP-52, TDP-54): the pages stay mapped all the
// time, and one flush per slot is enough.

#include <algorithm>
#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"

namespace mmu {
namespace {

// The contents of a table whose entries are of one level.
struct TableContents {
  // A present leaf, preferably an accessed one: the huge page counts as
  // accessed if any of the small pages was. Not present if there is no leaf.
  Spte leaf;
  bool has_tables = false;
};

TableContents ContentsOf(const PageTable& table, Level level,
                         const SpteFormat& format) {
  TableContents contents;
  for (const SpteSlot& slot : table.entries) {
    const Spte spte = slot.Load();
    if (!spte.IsPresent()) continue;
    if (!spte.IsLeaf(level)) {
      contents.has_tables = true;
    } else if (!contents.leaf.IsPresent() ||
               (format.IsAccessed(spte) && !format.IsAccessed(contents.leaf))) {
      contents.leaf = spte;
    }
  }
  return contents;
}

// The range from `start` to the end of its GiB, or of `range` if that comes
// first.
GfnRange BlockFrom(Gfn start, GfnRange range) {
  const Gfn end = RoundDown(start, Level::k1G) + PagesPer(Level::k1G);
  return {start, std::min(end, range.end)};
}

}  // namespace

// From small to large: putting a 1G leaf over tables of small leafs would tear
// down all 513 tables in one hold of the lock. This way each step tears down
// one table. Tables without a leaf that would be in the way of a 1G leaf are
// also removed one by one.
RecoverOutcome TdpMmu::Recover(MmuReadLocked& lock, const Memslot& slot,
                               GfnRange range, MmuCost* cost,
                               const HoldLimit& limit) {
  MMU_CHECK(!slot.dirty_log_enabled());
  RecoverOutcome outcome;
  const GfnRange wanted = range.Intersect(slot.range());
  for (RootRef root = roots_.First(RootFilter::kValid, slot.as_id); root;
       root = roots_.Next(std::move(root), RootFilter::kValid, slot.as_id)) {
    TlbFlushBatch batch(parts_.tlb, FlushScope::kRange, FlushReason::kRecover);
    YieldPoint<MmuReadLocked> yield(lock, limit);
    for (GfnRange block = BlockFrom(wanted.start, wanted); !block.empty();
         block = BlockFrom(block.end, wanted)) {
      const auto collapse = [&](Level level) {
        return CollapseTables(lock, *root, slot, block, level, yield, batch,
                              cost);
      };
      const uint64_t to_2m = collapse(Level::k2M);
      const uint64_t to_1g = collapse(Level::k1G);
      // Pages that became part of a 1G page do not count as 2M pages.
      outcome.to_1g_count += to_1g;
      if (to_1g == 0) outcome.to_2m_count += to_2m;
    }
    if (batch.pending()) batch.Flush(cost);
  }
  parts_.counters.CountRecoveries(Level::k2M, outcome.to_2m_count);
  parts_.counters.CountRecoveries(Level::k1G, outcome.to_1g_count);
  return outcome;
}

uint64_t TdpMmu::CollapseTables(MmuReadLocked& lock, const TdpRoot& root,
                                const Memslot& slot, GfnRange range,
                                Level level, YieldPoint<MmuReadLocked>& yield,
                                TlbFlushBatch& batch, MmuCost* cost) {
  if (level > options_.max_page_level) return 0;
  uint64_t collapsed = 0;
  TdpCursor c(root.table(), root.level(), range, level);
  while (c.Valid()) {
    if (yield.MaybeYield(c, &batch, cost)) {
      c.Next();
      continue;
    }
    if (cost != nullptr) ++cost->sptes_visited_count;
    // Upper entries that only overlap the range begin outside of it; a slot
    // must not be asked about a gfn outside of it (SLOT-45). Pages that are
    // being invalidated stay unmapped (RACE-44).
    const bool candidate =
        c.level() == level && c.IsPresentTable() &&
        range.Contains(c.entry_range()) &&
        !parts_.invalidations.IsInvalidating(c.entry_range()) &&
        slot.MaxMappingLevel(c.gfn(), options_.max_page_level) >= level;
    if (!candidate) {
      c.Next();
      continue;
    }
    const TableContents contents =
        ContentsOf(*TableOf(c.old_spte()), ChildOf(level), parts_.format);
    lock.CountWork(kEntriesPerTable);
    const GfnRange replaced = c.entry_range();
    if (contents.has_tables) {
      // Another thread has just mapped small pages here.
      c.Next();
      continue;
    }
    if (!contents.leaf.IsPresent()) {
      if (slot.MaxMappingLevel(c.gfn(), options_.max_page_level) > level) {
        // Entries that a fault adds meanwhile are removed with the table:
        // flush.
        if (!updater_.Update(lock, c, Spte::Initial())) continue;
        batch.Add(replaced, FlushDepth::kTables);
      }
      c.Next();
      continue;
    }
    // All pages below come from one host page, and no frame changes while no
    // invalidation is pending, so any child gives the huge frame (TDP-54):
    //
    //   1. invalidation: under mmu_lock in write mode Begin, AddRange, and one
    //      of the pages is unmapped; then, without the lock, taken away
    //   2. here: a child of another page of the block is present
    // The huge leaf made at 2 would map the page of 1 as well. The range was
    // checked under this hold of the lock. So either 1 is over, with every
    // child mapped again or gone, or 1 has not begun and will find the huge
    // leaf.
    Spte huge = parts_.format.MakeCollapsed(contents.leaf, level);
    if (parts_.nx_huge_pages.mitigated())
      huge = parts_.format.WithoutExecute(huge);
    if (!updater_.Collapse(lock, c, huge)) continue;  // retry
    batch.Add(replaced, FlushDepth::kTables);
    ++collapsed;
    c.Next();
  }
  return collapsed;
}

}  // namespace mmu
