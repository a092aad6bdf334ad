// Splitting huge pages (TDP-60..66). No flush is needed: before and after, each
// address translates to the same frame with the same rights, so it does not
// matter which translation a vCPU has cached.

#include <algorithm>
#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/hold_clock.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"

namespace mmu {

// Replaces the huge leaf under the cursor by a table of 512 smaller leafs with
// the same translations. False if another thread changed the leaf meanwhile;
// the table is then back in `cache`. REQUIRES: `cache` is not empty.
template <typename Lock>
bool TdpMmu::SplitLeaf(const Lock& lock, TdpCursor& cursor, TableCache& cache,
                       SplitTrigger trigger, const PageFault* fault) {
  const Level level = cursor.level();
  // Small pages may be executed where a huge page may not (SPTE-26).
  const Spte huge =
      ChildOf(level) == Level::k4K && parts_.nx_huge_pages.mitigated()
          ? parts_.format.WithExecute(cursor.old_spte())
          : cursor.old_spte();
  ShadowPage* page = cache.Take();
  updater_.PrepareChild(cursor, *page);
  if (fault != nullptr) MarkDisallowed(*fault, *page);
  // No other thread sees the table yet: plain stores, which the compiler
  // vectorises.
  static_assert(sizeof(SpteSlot) == sizeof(uint64_t));
  parts_.format.FillSplitChildren(
      huge, level, reinterpret_cast<uint64_t*>(page->table->entries.data()));
  // Counted before the link: for a moment a reader of the counters may see the
  // pages of both sizes, but never too few pages (STAT-42).
  parts_.counters.AddLeafs(ChildOf(level), kEntriesPerTable);
  lock.CountWork(kEntriesPerTable);
  AtHook(HookPoint::kTableFilledToLink);
  if (!updater_.Link(lock, cursor, *page)) {
    parts_.counters.AddLeafs(ChildOf(level), -kEntriesPerTable);
    cache.Put(page);
    return false;
  }
  if (fault != nullptr) TrackDisallowed(*fault, level, *page);
  parts_.counters.CountSplit(level, trigger);
  return true;
}

// For tdp_fault.cc.
template bool TdpMmu::SplitLeaf(const MmuReadLocked&, TdpCursor&, TableCache&,
                                SplitTrigger, const PageFault*);

template <typename Lock>
SplitOutcome TdpMmu::SplitRange(Lock& lock, int as_id, GfnRange range,
                                Level target, SplitTrigger trigger,
                                TableCache& cache, int64_t deadline_nanos,
                                MmuCost* cost, const HoldLimit& limit) {
  SplitOutcome outcome;
  outcome.next_gfn = range.end;
  int64_t visited = 0;
  for (RootRef root = roots_.First(RootFilter::kValid, as_id); root;
       root = roots_.Next(std::move(root), RootFilter::kValid, as_id)) {
    YieldPoint<Lock> yield(lock, limit);
    for (TdpCursor c(root->table(), root->level(), range, ParentOf(target));
         c.Valid(); c.Next()) {
      if (deadline_nanos != 0 && c.MayYield() &&
          HoldNanos() >= deadline_nanos) {
        // The next pass starts with this entry. With several roots, parts of it
        // may be split already.
        outcome.next_gfn = std::min(
            outcome.next_gfn, std::max(range.start, c.next_last_level_gfn()));
        break;
      }
      if (yield.MaybeYield(c, nullptr, cost)) continue;
      ++visited;
      // The table above was split just now, or by another thread: its children
      // are visited on the way down (TDP-61).
      if (!c.IsPresentLeaf() || c.level() <= target) continue;
      if (cache.count() == 0) {
        // Nothing is allocated under the lock (TDP-62). The entry is read again
        // afterwards.
        bool filled = false;
        yield.WithoutLock(c, [&] { filled = cache.TryTopUp(1); });
        if (!filled) {
          const bool at_limit = parts_.pool.is_at_limit();
          parts_.counters.CountSplitFailure(at_limit ? SplitFailure::kLimit
                                                     : SplitFailure::kNoMemory);
          (at_limit ? outcome.limit_count : outcome.no_memory_count) = 1;
          outcome.next_gfn = std::max(range.start, c.next_last_level_gfn());
          if (cost != nullptr) cost->sptes_visited_count += visited;
          return outcome;
        }
        continue;
      }
      const bool was_1g = c.level() == Level::k1G;
      while (c.IsPresentLeaf() && !SplitLeaf(lock, c, cache, trigger)) {
        // Same entry, same spare table, new value (TDP-64).
        parts_.counters.CountSplitFailure(SplitFailure::kRaced);
        ++outcome.raced_count;
      }
      if (c.IsPresentTable()) {
        ++(was_1g ? outcome.split_1g_count : outcome.split_2m_count);
      }
    }
  }
  if (cost != nullptr) cost->sptes_visited_count += visited;
  return outcome;
}

SplitOutcome TdpMmu::Split(MmuReadLocked& lock, int as_id, GfnRange range,
                           Level target, SplitTrigger trigger,
                           TableCache& cache, int64_t deadline_nanos,
                           MmuCost* cost, const HoldLimit& limit) {
  return SplitRange(lock, as_id, range, target, trigger, cache, deadline_nanos,
                    cost, limit);
}

SplitOutcome TdpMmu::Split(MmuWriteLocked& lock, int as_id, GfnRange range,
                           Level target, SplitTrigger trigger,
                           TableCache& cache, int64_t deadline_nanos,
                           MmuCost* cost, const HoldLimit& limit) {
  return SplitRange(lock, as_id, range, target, trigger, cache, deadline_nanos,
                    cost, limit);
}

}  // namespace mmu
