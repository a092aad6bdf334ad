// Putting huge pages back together in place (TDP-52, TDP-54): the pages stay
// mapped all the time, and one flush per slot is enough.

#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"
#include "mmu_core/tdp/yield_point.h"

namespace mmu {
namespace {

struct FoundLeaf {
  Spte spte;  // not present if there is none
  Level level = Level::k4K;
};

// The first present leaf below the table `page`.
FoundLeaf FirstLeafBelow(PageTable* table, Level level) {
  for (const SpteSlot& slot : table->entries) {
    const Spte spte = slot.Load();
    if (!spte.IsPresent()) continue;
    if (spte.IsLeaf(level)) return {spte, level};
    if (FoundLeaf below = FirstLeafBelow(TableOf(spte), ChildOf(level));
        below.spte.IsPresent()) {
      return below;
    }
  }
  return {};
}

}  // namespace

RecoverOutcome TdpMmu::Recover(MmuReadLocked& lock, const Memslot& slot,
                               GfnRange range, MmuCost* cost) {
  MMU_CHECK(!slot.dirty_log_enabled());
  RecoverOutcome outcome;
  const GfnRange wanted = range.Intersect(slot.range());
  for (RootRef root = roots_.First(RootFilter::kValid, slot.as_id); root;
       root = roots_.Next(std::move(root), RootFilter::kValid, slot.as_id)) {
    TlbFlushBatch batch(parts_.tlb, FlushScope::kRange, FlushReason::kRecover);
    YieldPoint<MmuReadLocked> yield(lock);
    TdpCursor c(root->table(), root->level(), wanted, Level::k2M);
    while (c.Valid()) {
      if (yield.MaybeYield(c, &batch, cost)) {
        c.Next();
        continue;
      }
      if (cost != nullptr) ++cost->sptes_visited_count;
      // Upper entries that only overlap the range begin outside of it; asking
      // a slot about a gfn that is not its own is illegal (SLOT-45).
      const bool candidate =
          c.IsPresentTable() && c.level() <= options_.max_page_level &&
          wanted.Contains(c.entry_range()) &&
          slot.MaxMappingLevel(c.gfn(), options_.max_page_level) >= c.level();
      if (!candidate) {
        c.Next();
        continue;
      }
      const FoundLeaf leaf =
          FirstLeafBelow(TableOf(c.old_spte()), ChildOf(c.level()));
      if (!leaf.spte.IsPresent()) {
        c.Next();
        continue;
      }
      // All pages below come from one host page, and no frame changes while no
      // invalidation is pending, so any child names the huge frame (TDP-54).
      const Spte huge = parts_.format.MakeCollapsed(leaf.spte, c.level());
      const GfnRange replaced = c.entry_range();
      if (!updater_.Update(lock, c, huge)) continue;  // look again
      batch.Add(replaced);
      parts_.counters.CountRecovery(c.level());
      ++(c.level() == Level::k1G ? outcome.to_1g_count : outcome.to_2m_count);
      c.Next();
    }
    if (batch.pending()) batch.Flush(cost);
  }
  return outcome;
}

}  // namespace mmu
