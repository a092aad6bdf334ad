#include "mmu_core/shadow/shadow_split.h"

#include <atomic>

#include "absl/status/status.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/tdp/yield_point.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {

// What one call works with.
struct ShadowSplit::Pass {
  MmuWriteLocked& lock;
  SlotRmaps& rmaps;
  const SplitTrigger trigger;
  ShadowCaches& caches;
  MmuCost* const cost;
  // A split takes as long as many steps of other walks.
  YieldPoint<MmuWriteLocked> yield{lock,
                                   YieldPoint<MmuWriteLocked>::kLongSteps};
  SplitOutcome outcome = {};
};

SplitOutcome ShadowSplit::Split(MmuWriteLocked& lock, const Memslot& slot,
                                GfnRange range, Level target,
                                SplitTrigger trigger, ShadowCaches& caches,
                                MmuCost* cost) {
  SlotRmaps* const rmaps = slot.shadow_rmaps();
  if (options_.tdp == TdpEnabled::kNo || rmaps == nullptr) {
    return {.next_gfn = range.end};
  }
  Pass pass{lock, *rmaps, trigger, caches, cost};
  pass.outcome.next_gfn = range.end;
  for (Level level = kMaxLeafLevel; level > target; level = ChildOf(level)) {
    for (SlotRmapCursor c(*rmaps, range, level, level); c.Valid(); c.Next()) {
      SplitRmap(pass, c);
      pass.yield.MaybeYield(c, nullptr, cost);
    }
  }
  return pass.outcome;
}

// Each split changes the rmap, and so does who gets the lock in between: the
// walk over it begins anew every time.
//
// RACE-39: a split that is off the lock, against L1's write to its own table.
//
//   1. Split: finds a huge SPTE. The caches are low, or somebody waits: drops
//      mmu_lock.
//   2. L1: writes to the entry that the SPTE stands for, which is emulated:
//      mmu_lock, the SPTE goes, off its rmap; maybe its page is freed.
//   3. Split: mmu_lock again. It must not touch what it found in 1, but look
//      into the rmap as it is now; the head of that stays as long as the slot.
void ShadowSplit::SplitRmap(Pass& pass, SlotRmapCursor& cursor) {
  bool may_let_go = true;  // not twice without a split in between
  while (SpteSlot* const sptep =
             FirstSplittable(pass.lock, cursor.head(), pass.cost)) {
    if (pages_.Available() <= ShadowPages::kMinFree) {
      parts_.counters.CountSplitFailure(SplitFailure::kLimit);
      ++pass.outcome.limit_count;
      return;
    }
    if (pass.caches.NeedTopUpForSplit() || (may_let_go && pass.yield.IsDue())) {
      absl::Status status;
      pass.yield.WithoutLock(cursor,
                             [&] { status = pass.caches.TopUpForSplit(); });
      if (!status.ok()) {
        parts_.counters.CountSplitFailure(SplitFailure::kNoMemory);
        ++pass.outcome.no_memory_count;
        return;
      }
      may_let_go = false;
      continue;
    }
    SplitSpte(pass, *sptep);
    may_let_go = true;
  }
}

SpteSlot* ShadowSplit::FirstSplittable(const MmuWriteLocked& lock,
                                       const RmapHead& head, MmuCost* cost) {
  for (RmapIterator it = head.Entries(lock); it.Valid(); it.Next()) {
    if (cost != nullptr) ++cost->sptes_visited_count;
    const ShadowPageState& page = PageHolding(it.sptep());
    // A page that is torn down will lose its SPTEs. The others are not met:
    // with TDP all shadow pages are a nested guest's, above level 1 none is
    // unsync, and an rmap holds leafs.
    if (page.IsInvalid() || !page.page->role.guest_mode() ||
        page.unsync.load(std::memory_order_relaxed) ||
        !it.sptep().Load().IsPresentLeaf(page.level())) {
      continue;
    }
    return &it.sptep();
  }
  return nullptr;
}

void ShadowSplit::SplitSpte(Pass& pass, SpteSlot& sptep) {
  const ShadowPageState& page = PageHolding(sptep);
  const Level level = page.level();
  const int index = IndexInTable(sptep);
  const SpteFormat& format = parts_.FormatOf(page);
  const GuestTranslation from = page.TranslationOf(index);
  const Spte huge = sptep.Load();

  ShadowPageState& child =
      pages_
          .GetOrCreate(pass.lock, from.gfn,
                       page.page->role.DirectChild(from.access, index),
                       pass.caches, pass.cost)
          .page;
  // Small pages may be executed where a huge one may not (SPTE-26).
  const bool executable = child.level() == Level::k4K &&
                          options_.nx_huge_pages != nullptr &&
                          options_.nx_huge_pages->mitigated();
  bool maps_less = false;
  for (int i = 0; i < kEntriesPerTable; ++i) {
    SpteSlot& entry = child.EntryAt(i);
    const Spte present = entry.Load();
    if (present.IsPresent()) {
      // The page is linear, so a leaf translates as the huge one does; the
      // table below a link may be empty in part.
      maps_less |= !present.IsLeaf(child.level());
      continue;
    }
    Spte small = format.MakeSplitChild(huge, level, i);
    if (executable) small = format.WithExecute(small, from.access);
    // Where that was one too many, the page is not mapped either (SHD-14).
    maps_less |=
        pages_.links().AddLeaf(pass.lock, entry, small, child.TranslationOf(i),
                               pass.rmaps, pass.caches.lists, pass.cost);
  }
  TlbFlushBatch flush(parts_.tlb, FlushScope::kRange, FlushReason::kSplit);
  pages_.links().LinkChild(pass.lock, sptep, child, pass.caches.lists,
                           maps_less ? &flush : nullptr, pass.cost);
  parts_.counters.CountSplit(level, pass.trigger);
  ++(level == Level::k1G ? pass.outcome.split_1g_count
                         : pass.outcome.split_2m_count);
}

}  // namespace mmu
