#include "mmu_core/shadow/shadow_recover.h"

#include <cstdint>

#include "mmu_core/base/check.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/rmap/slot_rmap_cursor.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/tdp/yield_point.h"

namespace mmu {

uint64_t ShadowRecover::Recover(MmuWriteLocked& lock, const Memslot& slot,
                                GfnRange range, MmuCost* cost) {
  MMU_CHECK(!slot.dirty_log_enabled());
  const SlotRmaps* const rmaps = slot.shadow_rmaps();
  if (rmaps == nullptr) return 0;
  uint64_t zapped = 0;
  TlbFlushBatch batch(parts_.tlb, FlushScope::kRange, FlushReason::kRecover);
  YieldPoint<MmuWriteLocked> yield(lock);
  for (SlotRmapCursor c(*rmaps, range, Level::k4K, ChildOf(kMaxLeafLevel));
       c.Valid(); c.Next()) {
    if (!c.head().empty()) {
      const Level allowed = slot.MaxMappingLevel(c.gfn(), max_page_level_);
      if (allowed > c.level()) {
        zapped += ZapSmallOf(lock, c.head(), batch, cost);
      }
    }
    yield.MaybeYield(c, &batch, cost);
  }
  if (batch.pending()) batch.Flush(cost);
  return zapped;
}

uint64_t ShadowRecover::ZapSmallOf(const MmuWriteLocked& lock,
                                   const RmapHead& head, TlbFlushBatch& batch,
                                   MmuCost* cost) {
  uint64_t zapped = 0;
  for (RmapIterator it = head.Entries(lock); it.Valid();) {
    if (cost != nullptr) ++cost->sptes_visited_count;
    SpteSlot& sptep = it.sptep();
    if (!PageHolding(sptep).page->role.IsDirect()) {
      it.Next();
      continue;
    }
    batch.Add(ShadowLinks::RangeOf(sptep));
    links_.DropLeaf(lock, sptep);
    ++zapped;
    it = head.Entries(lock);  // the rmap changed
  }
  return zapped;
}

}  // namespace mmu
