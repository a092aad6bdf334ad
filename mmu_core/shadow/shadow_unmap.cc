#include "mmu_core/shadow/shadow_unmap.h"

#include "mmu_core/base/level.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/rmap/slot_rmap_cursor.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {

// Zaps large leafs first, because a split may come while this walk has dropped
// mmu_lock (RACE-47). With small leafs first:
//
//   1. here: no 4K leaf is left in the range. Another thread waits, so this
//      thread drops mmu_lock before it comes to the 2M leafs
//   2. split, which needs only mmu_lock: replaces a 2M leaf by 512 leafs of 4K,
//      whose rmaps step 1 has already passed
//   3. here: finds no 2M leaf and returns. The host takes the pages away, but
//      they are still mapped
//
// No thread makes a larger leaf while the lock is dropped: a fault or a
// recovery first checks whether the pages are being invalidated.
bool ShadowUnmap::ZapLeafs(MmuWriteLocked& lock, const Memslot& slot,
                           GfnRange range, FlushReason reason, MmuCost* cost,
                           MayYield may_yield) {
  const SlotRmaps* const rmaps = slot.shadow_rmaps();
  if (rmaps == nullptr) return false;
  bool zapped = false;
  TlbFlushBatch batch(parts_.tlb, FlushScope::kRange, reason);
  YieldPoint<MmuWriteLocked> yield(lock);
  for (Level level = kMaxLeafLevel;; level = ChildOf(level)) {
    for (SlotRmapCursor c(*rmaps, range, level, level); c.Valid(); c.Next()) {
      if (cost != nullptr) ++cost->sptes_visited_count;
      if (links_.ZapRmap(lock, c.head())) {
        batch.Add(GfnRange::Of(RoundDown(c.gfn(), level), PagesPer(level)));
        zapped = true;
      }
      if (may_yield == MayYield::kYes) yield.MaybeYield(c, &batch, cost);
    }
    if (level == Level::k4K) break;
  }
  if (batch.pending()) batch.Flush(cost);
  return zapped;
}

// Walks the chains of the hash table and not the slot's gfns, which are far
// more. A zapped page stays in its chain until the commit, so the walk can
// continue from it.
void ShadowUnmap::ZapGuestTables(MmuWriteLocked& lock, const Memslot& slot,
                                 MmuCost* cost) {
  if (slot.shadow_rmaps() == nullptr) return;
  ZappedPages zapped;
  for (int chain = 0; chain < ShadowPageSet::kChains; ++chain) {
    for (ShadowPageState* page = set_.FirstInChain(chain); page != nullptr;
         page = page->hash_next) {
      const PageRole role = page->page->role;
      if (page->IsInvalid() || !role.HasGuestPtes()) continue;
      if (role.as_id() != slot.as_id || !slot.Contains(page->gfn())) continue;
      zap_.Prepare(lock, *page, zapped);
    }
    if (!lock.NeedYield()) continue;
    zap_.Commit(lock, zapped, cost);
    lock.Yield();
  }
  zap_.Commit(lock, zapped, cost);
}

}  // namespace mmu
