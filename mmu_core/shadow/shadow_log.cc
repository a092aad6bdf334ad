#include "mmu_core/shadow/shadow_log.h"

#include <bit>
#include <cstdint>

#include "mmu_core/base/bits.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/rmap/slot_rmap_cursor.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/shadow_page_state.h"

namespace mmu {

bool ShadowLog::WriteProtect(MmuWriteLocked& lock, const Memslot& slot,
                             GfnRange range, Level min_level, MmuCost* cost,
                             const HoldLimit& limit) {
  return TakeFromSlot(lock, slot, range, min_level, kMaxLeafLevel, Take::kWrite,
                      cost, limit);
}

bool ShadowLog::ClearDirty(MmuWriteLocked& lock, const Memslot& slot,
                           GfnRange range, MmuCost* cost,
                           const HoldLimit& limit) {
  return TakeFromSlot(lock, slot, range, Level::k4K, Level::k4K, Take::kDirty,
                      cost, limit);
}

bool ShadowLog::WriteProtectMasked(MmuWriteLocked& lock, const Memslot& slot,
                                   Gfn first, uint64_t mask, MmuCost* cost) {
  return TakeMasked(lock, slot, first, mask, Take::kWrite, cost);
}

bool ShadowLog::ClearDirtyMasked(MmuWriteLocked& lock, const Memslot& slot,
                                 Gfn first, uint64_t mask, MmuCost* cost) {
  return TakeMasked(lock, slot, first, mask, Take::kDirty, cost);
}

bool ShadowLog::TakeFromSlot(MmuWriteLocked& lock, const Memslot& slot,
                             GfnRange range, Level first, Level last, Take what,
                             MmuCost* cost, const HoldLimit& limit) {
  const SlotRmaps* const rmaps = slot.shadow_rmaps();
  if (rmaps == nullptr) return false;
  bool changed = false;
  YieldPoint<MmuWriteLocked> yield(lock, limit);
  for (SlotRmapCursor c(*rmaps, range, first, last); c.Valid(); c.Next()) {
    changed |= TakeFromRmap(lock, c.head(), what, cost);
    yield.MaybeYield(c, nullptr, cost);
  }
  return changed;
}

bool ShadowLog::TakeMasked(MmuWriteLocked& lock, const Memslot& slot, Gfn first,
                           uint64_t mask, Take what, MmuCost* cost) {
  const SlotRmaps* const rmaps = slot.shadow_rmaps();
  if (rmaps == nullptr) return false;
  bool changed = false;
  HoldWatch<MmuWriteLocked> watch(lock, {});
  const auto first_bit = static_cast<uint64_t>(std::countr_zero(mask));
  for (const uint64_t bit : SetBitsOf(mask)) {
    // The lists of 64 rmaps may be long.
    if (bit != first_bit && watch.IsOver()) lock.Yield();
    const RmapHead& head = rmaps->Head(first + bit, Level::k4K);
    changed |= TakeFromRmap(lock, head, what, cost);
  }
  return changed;
}

bool ShadowLog::TakeFromRmap(const MmuWriteLocked& lock, const RmapHead& head,
                             Take what, MmuCost* cost) {
  bool changed = false;
  for (RmapIterator it = head.Entries(lock); it.Valid(); it.Next()) {
    if (cost != nullptr) ++cost->sptes_visited_count;
    lock.CountWork(1);
    const ShadowPageState& page = PageHolding(it.sptep());
    const SpteFormat& format = parts_.FormatOf(page);
    const Spte spte = it.sptep().Load();
    MMU_DCHECK(spte.IsPresentLeaf(page.level()));
    const uint64_t bit = what == Take::kWrite || format.NeedsWriteProtect(spte)
                             ? spte_bits::kWrite
                             : format.dirty_mask();
    if ((spte.bits() & bit) == 0) continue;
    AtHook(HookPoint::kEntryToAnd);
    // The SPTE stays a leaf while the lock is held. The hardware may set A and
    // D, a fast fault W, and ageing may clear A: an atomic AND loses none of
    // these.
    it.sptep().FetchAnd(~bit);
    changed = true;
  }
  return changed;
}

}  // namespace mmu
