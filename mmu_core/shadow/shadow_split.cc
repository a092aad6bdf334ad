#include "mmu_core/shadow/shadow_split.h"

#include <atomic>
#include <bitset>
#include <cstddef>
#include <cstdint>

#include "mmu_core/base/hooks.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {

// The arguments of one call.
struct ShadowSplit::Pass {
  MmuWriteLocked& lock;
  SlotRmaps& rmaps;
  const SplitTrigger trigger;
  ShadowCaches& caches;
  MmuCost* const cost;
  YieldPoint<MmuWriteLocked> yield;
  SplitOutcome outcome = {};
};

SplitOutcome ShadowSplit::Split(MmuWriteLocked& lock, const Memslot& slot,
                                GfnRange range, Level target,
                                SplitTrigger trigger, ShadowCaches& caches,
                                MmuCost* cost, const HoldLimit& limit) {
  SlotRmaps* const rmaps = slot.shadow_rmaps();
  if (options_.tdp == TdpEnabled::kNo || rmaps == nullptr) {
    return {.next_gfn = range.end};
  }
  Pass pass{.lock = lock,
            .rmaps = *rmaps,
            .trigger = trigger,
            .caches = caches,
            .cost = cost,
            .yield = YieldPoint<MmuWriteLocked>(lock, limit)};
  pass.outcome.next_gfn = range.end;
  for (Level level = kMaxLeafLevel; level > target; level = ChildOf(level)) {
    for (SlotRmapCursor c(*rmaps, range, level, level); c.Valid(); c.Next()) {
      SplitRmap(pass, c);
      pass.yield.MaybeYield(c, nullptr, cost);
    }
  }
  return pass.outcome;
}

// Each split changes the rmap, and so may a thread that gets the lock in
// between: the walk over the rmap starts again every time.
//
// RACE-39: a split that has released the lock, against L1's write to its own
// table.
//
//   1. Split: finds a huge SPTE. The caches are low, or another thread waits:
//      drops mmu_lock.
//   2. L1: writes to the entry that the SPTE shadows, which is emulated:
//      under mmu_lock the SPTE is dropped from its rmap; maybe its page is
//      freed.
//   3. Split: takes mmu_lock again. It must not use the SPTE found in 1, but
//      must look into the current rmap; the rmap's head lives as long as the
//      slot.
void ShadowSplit::SplitRmap(Pass& pass, SlotRmapCursor& cursor) {
  bool may_let_go = true;  // only after a split since the last yield
  while (SpteSlot* const sptep =
             FirstSplittable(pass.lock, cursor.head(), pass.cost)) {
    if (pages_.Available() <= ShadowPages::kMinFree) {
      parts_.counters.CountSplitFailure(SplitFailure::kLimit);
      ++pass.outcome.limit_count;
      return;
    }
    if (pass.caches.NeedTopUpForSplit() || (may_let_go && pass.yield.IsDue())) {
      bool filled = false;
      pass.yield.WithoutLock(cursor,
                             [&] { filled = pass.caches.TryTopUpForSplit(); });
      if (!filled) {
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
    lock.CountWork(1);
    const ShadowPageState& page = PageHolding(it.sptep());
    // A page that is being torn down will lose its SPTEs. The other conditions
    // never hold here: with TDP all shadow pages belong to nested guests, no
    // page above level 1 is unsync, and an rmap holds only leafs.
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
  // Small pages may be executed where a huge page may not (SPTE-26).
  const bool executable = child.level() == Level::k4K &&
                          options_.nx_huge_pages != nullptr &&
                          options_.nx_huge_pages->mitigated();
  bool maps_less = false;
  std::bitset<kEntriesPerTable> made;
  for (int i = 0; i < kEntriesPerTable; ++i) {
    SpteSlot& entry = child.EntryAt(i);
    const Spte present = entry.Load();
    if (present.IsPresent()) {
      // The child is a direct page, so a leaf in it translates as the huge SPTE
      // does. A table below a link may be partly empty.
      maps_less |= !present.IsLeaf(child.level());
      continue;
    }
    Spte small = format.MakeSplitChild(huge, level, i);
    if (executable) small = format.WithExecute(small, from.access);
    // If the rmap became too long, this page is not mapped (SHD-14).
    maps_less |=
        pages_.links().AddLeaf(pass.lock, entry, small, child.TranslationOf(i),
                               pass.rmaps, pass.caches.lists, pass.cost);
    made.set(static_cast<size_t>(i));
  }
  pass.lock.CountWork(kEntriesPerTable);
  AtHook(HookPoint::kTableFilledToLink);
  const GfnRange range = ShadowLinks::RangeOf(sptep);
  KeepAssists(child, made, pages_.links().DropLeaf(pass.lock, sptep), format);
  if (maps_less) {
    TlbFlushBatch flush(parts_.tlb, FlushScope::kRange, FlushReason::kSplit);
    flush.Add(range);
    flush.Flush(pass.cost);
  }
  pages_.links().LinkChild(pass.lock, sptep, child, pass.caches.lists,
                           /*flush=*/nullptr, pass.cost);
  parts_.counters.CountSplit(level, pass.trigger);
  ++(level == Level::k1G ? pass.outcome.split_1g_count
                         : pass.outcome.split_2m_count);
}

// RACE-11. The small SPTEs were made from a snapshot of the huge one. Until the
// huge SPTE was dropped, which returned its final value, the processor may have
// set Accessed or Dirty in it. No vCPU walks through the new link yet.
//
// SPTEs that an alias had made before get only Accessed: setting Dirty in one
// whose writes are detected by D would let a write go unnoticed. SPTEs `made`
// here are copies of the huge one, which was not writable if its slot logs.
void ShadowSplit::KeepAssists(ShadowPageState& child,
                              const std::bitset<kEntriesPerTable>& made,
                              Spte huge, const SpteFormat& format) {
  if (!format.has_ad()) return;
  const uint64_t accessed = huge.bits() & format.accessed_mask();
  const uint64_t dirty = huge.bits() & format.dirty_mask();
  for (int i = 0; i < kEntriesPerTable; ++i) {
    SpteSlot& entry = child.EntryAt(i);
    const Spte spte = entry.Load();
    if (!spte.IsPresentLeaf(child.level())) continue;
    const uint64_t bits =
        accessed | (made.test(static_cast<size_t>(i)) ? dirty : 0);
    if ((spte.bits() & bits) != bits) entry.FetchOr(bits);
  }
}

}  // namespace mmu
