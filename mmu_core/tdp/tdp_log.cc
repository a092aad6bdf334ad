// Taking write permission or the Dirty bit away, so that the next write to a
// page is noticed (TDP-50, 51, 55, 56).

#include <bit>
#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"
#include "mmu_core/tdp/yield_point.h"

namespace mmu {

template <typename Change>
bool TdpMmu::ChangeLeafs(MmuReadLocked& lock, int as_id, GfnRange range,
                         Level min_level, MmuCost* cost, Change change) {
  bool changed = false;
  int64_t visited = 0;
  for (RootRef root = roots_.First(RootFilter::kValid, as_id); root;
       root = roots_.Next(std::move(root), RootFilter::kValid, as_id)) {
    YieldPoint<MmuReadLocked> yield(lock);
    for (TdpCursor c(root->table(), root->level(), range, min_level); c.Valid();
         c.Next()) {
      // Yields without a flush: the caller flushes in any case before anybody
      // relies on the protection (TLB-09).
      if (yield.MaybeYield(c, nullptr, cost)) continue;
      ++visited;
      while (c.IsPresentLeaf()) {
        const Spte wanted = change(c.old_spte());
        if (wanted == c.old_spte()) break;
        if (updater_.Update(lock, c, wanted)) {
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
                          Level min_level, MmuCost* cost) {
  return ChangeLeafs(lock, as_id, range, min_level, cost,
                     [this](Spte s) { return parts_.format.WithoutWrite(s); });
}

bool TdpMmu::ClearDirty(MmuReadLocked& lock, int as_id, GfnRange range,
                        MmuCost* cost) {
  return ChangeLeafs(lock, as_id, range, Level::k4K, cost,
                     [this](Spte s) { return parts_.format.WithoutDirty(s); });
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
      if (!c.IsPresentLeaf()) continue;
      const Spte wanted = parts_.format.WithoutMmuWrite(c.old_spte());
      if (wanted == c.old_spte()) continue;
      updater_.Update(lock, c, wanted);
      changed = true;
    }
  }
  return changed;
}

bool TdpMmu::WriteProtectMasked(const MmuWriteLocked&, int as_id, Gfn first,
                                uint64_t mask, MmuCost* cost) {
  MMU_DCHECK(mask != 0);
  RcuReadGuard rcu;
  bool changed = false;
  const GfnRange window = {first + std::countr_zero(mask),
                           first + (64 - std::countl_zero(mask))};
  for (TdpRoot* root = roots_.FirstRcu(RootFilter::kValid, as_id);
       root != nullptr;
       root = roots_.NextRcu(root, RootFilter::kValid, as_id)) {
    for (TdpCursor c(root->table(), root->level(), window, Level::k4K);
         c.Valid(); c.Next()) {
      if (c.level() != Level::k4K || !c.old_spte().IsPresent()) continue;
      if ((mask >> (c.gfn() - first) & 1) == 0) continue;
      if (cost != nullptr) ++cost->sptes_visited_count;
      if (!c.old_spte().IsWritable()) continue;
      // Only W changes, and only the fast fault can interfere, which sets it:
      // an atomic AND loses nothing.
      c.slot().FetchAnd(~spte_bits::kWrite);
      changed = true;
    }
  }
  return changed;
}

}  // namespace mmu
