// Clearing write permission or the Dirty bit, so that the next write to a page
// is detected (TDP-50, 51, 55, 56).

#include <cstdint>
#include <utility>

#include "mmu_core/base/bits.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"

namespace mmu {

namespace {

// A present entry with `bit`. In an MMIO SPTE the same bits have other
// meanings.
bool HasBit(Spte spte, uint64_t bit) {
  const uint64_t wanted = bit | spte_bits::kMmuPresent;
  return (spte.bits() & wanted) == wanted;
}

// Clears `bit` in the `count` entries from `first` on, all of one 4K table.
//
// Other threads may change the entries meanwhile. An atomic AND loses none of
// their changes. It may be used because at this level every present entry is a
// leaf, and the values of unused and frozen entries do not have `bit`: an AND
// does not change them. The load before it avoids the locked instruction where
// `bit` is already clear.
bool TakeFromTable(SpteSlot* first, int count, uint64_t bit) {
  MMU_DCHECK((bit & (Spte::Initial().bits() | Spte::Frozen().bits())) == 0);
  bool changed = false;
  for (SpteSlot* slot = first; slot != first + count; ++slot) {
    if (!HasBit(slot->Load(), bit)) continue;
    AtHook(HookPoint::kEntryToAnd);
    slot->FetchAnd(~bit);
    changed = true;
  }
  return changed;
}

// The 4K table that covers `gfn`; null if a larger page or nothing covers it.
PageTable* SmallTableOf(const TdpRoot& root, Gfn gfn) {
  PageTable* table = root.table();
  for (Level level = root.level(); level != Level::k4K;
       level = ChildOf(level)) {
    const Spte spte = table->entries[IndexOf(gfn, level)].Load();
    if (!spte.IsPresentTable(level)) return nullptr;
    table = TableOf(spte);
  }
  return table;
}

}  // namespace

bool TdpMmu::TakeFromLeafs(MmuReadLocked& lock, int as_id, GfnRange range,
                           Level min_level, uint64_t bit, MmuCost* cost,
                           const HoldLimit& limit) {
  bool changed = false;
  int64_t visited = 0;
  for (RootRef root = roots_.First(RootFilter::kValid, as_id); root;
       root = roots_.Next(std::move(root), RootFilter::kValid, as_id)) {
    YieldPoint<MmuReadLocked> yield(lock, limit);
    for (TdpCursor c(root->table(), root->level(), range, min_level); c.Valid();
         c.Next()) {
      // Yields without a flush: the caller flushes in any case before any code
      // relies on the protection (TLB-09).
      if (yield.MaybeYield(c, nullptr, cost)) continue;
      if (c.level() == Level::k4K) {
        const int entries = c.EntriesLeft();
        changed |= TakeFromTable(&c.slot(), entries, bit);
        lock.CountWork(entries);
        c.SkipToLastEntry();
        visited += entries;
        continue;
      }
      ++visited;
      // The entry may become a pointer to a table, which must keep its bits:
      // only a compare-exchange is safe here.
      while (c.IsPresentLeaf() && (c.old_spte().bits() & bit) != 0) {
        if (updater_.Update(lock, c, c.old_spte().Without(bit))) {
          changed = true;
          break;
        }
      }
    }
  }
  if (cost != nullptr) cost->sptes_visited_count += visited;
  return changed;
}

bool TdpMmu::WriteProtect(MmuReadLocked& lock, int as_id, GfnRange range,
                          Level min_level, MmuCost* cost,
                          const HoldLimit& limit) {
  return TakeFromLeafs(lock, as_id, range, min_level, spte_bits::kWrite, cost,
                       limit);
}

bool TdpMmu::ClearDirty(MmuReadLocked& lock, int as_id, GfnRange range,
                        MmuCost* cost, const HoldLimit& limit) {
  return TakeFromLeafs(lock, as_id, range, Level::k4K, dirty_bit(), cost,
                       limit);
}

bool TdpMmu::WriteProtectGfn(const MmuWriteLocked& lock, int as_id, Gfn gfn,
                             Level min_level) {
  RcuReadGuard rcu;
  bool changed = false;
  for (TdpRoot* root = roots_.FirstRcu(RootFilter::kValid, as_id);
       root != nullptr;
       root = roots_.NextRcu(root, RootFilter::kValid, as_id)) {
    for (TdpCursor c(root->table(), root->level(), GfnRange::Of(gfn, 1),
                     min_level);
         c.Valid(); c.Next()) {
      while (c.IsPresentLeaf()) {
        const Spte wanted = parts_.format.WithoutMmuWrite(c.old_spte());
        if (wanted == c.old_spte()) break;
        // The processor may set A and D at any moment, and a fast fault W.
        if (!updater_.TryUpdate(lock, c, wanted)) continue;
        changed = true;
        break;
      }
    }
  }
  return changed;
}

bool TdpMmu::WriteProtectMasked(const MmuWriteLocked& lock, int as_id,
                                Gfn first, uint64_t mask, MmuCost* cost) {
  return TakeMasked(lock, as_id, first, mask, spte_bits::kWrite, cost);
}

bool TdpMmu::ClearDirtyMasked(const MmuWriteLocked& lock, int as_id, Gfn first,
                              uint64_t mask, MmuCost* cost) {
  return TakeMasked(lock, as_id, first, mask, dirty_bit(), cost);
}

bool TdpMmu::TakeMasked(const MmuWriteLocked& lock, int as_id, Gfn first,
                        uint64_t mask, uint64_t bit, MmuCost* cost) {
  RcuReadGuard rcu;
  bool changed = false;
  for (TdpRoot* root = roots_.FirstRcu(RootFilter::kValid, as_id);
       root != nullptr;
       root = roots_.NextRcu(root, RootFilter::kValid, as_id)) {
    lock.CountWork(static_cast<int64_t>(CountBits(mask)));
    PageTable* table = nullptr;
    Gfn table_gfn(~uint64_t{0});  // first gfn of `table`, if it was looked up
    for (const uint64_t bit_of_page : SetBitsOf(mask)) {
      const Gfn gfn = first + bit_of_page;
      // A slot may begin anywhere, so its 64 pages may lie in two tables.
      if (RoundDown(gfn, Level::k2M) != table_gfn) {
        table = SmallTableOf(*root, gfn);
        table_gfn = RoundDown(gfn, Level::k2M);
      }
      if (table == nullptr) continue;
      SpteSlot& slot = table->entries[IndexOf(gfn, Level::k4K)];
      if (cost != nullptr) ++cost->sptes_visited_count;
      if (!HasBit(slot.Load(), bit)) continue;
      AtHook(HookPoint::kEntryToAnd);
      // Only the fast fault, which sets W, and the hardware, which sets A and
      // D, can interfere: an atomic AND loses neither.
      slot.FetchAnd(~bit);
      changed = true;
    }
  }
  return changed;
}

}  // namespace mmu
