#include "mmu_core/tdp/spte_update.h"

#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

// An unlinked table needs no count, so the leafs that go with it do not matter
// here.
SpteUpdater::Changes::Removed SpteUpdater::Handle(const SpteSlot& slot, Gfn gfn,
                                                  Level level, Spte old_spte,
                                                  Spte new_spte,
                                                  ChangeMode mode) const {
  if (level == Level::k4K && old_spte.IsPresent() != new_spte.IsPresent()) {
    AtHook(HookPoint::kLeafToForget);
    TablePool::DescriptorOf(TableHolding(slot))->leaf_count.Forget();
  }
  return changes_.Handle(gfn, level, old_spte, new_spte, mode);
}

bool SpteUpdater::Update(const MmuReadLocked& lock, TdpCursor& cursor,
                         Spte desired) {
  MMU_DCHECK(InRcuReadSection());
  MMU_DCHECK(!cursor.old_spte().IsFrozen());
  const Spte old_spte = cursor.old_spte();
  Spte expected = old_spte;
  const MayUnlink unlinking(cursor.level(), old_spte, desired);
  AtHook(HookPoint::kSnapshotToExchange);
  const bool won = cursor.slot().CompareExchange(expected, desired);
  cursor.SetOldSpte(won ? desired : expected);
  if (!won) return false;
  lock.CountWork(Handle(cursor.slot(), cursor.gfn(), cursor.level(), old_spte,
                        desired, ChangeMode::kShared)
                     .entries);
  return true;
}

bool SpteUpdater::UpdateOnce(const MmuReadLocked& lock, SpteSlot& slot, Gfn gfn,
                             Level level, Spte expected, Spte desired) {
  MMU_DCHECK(InRcuReadSection());
  const Spte old_spte = expected;
  const MayUnlink unlinking(level, old_spte, desired);
  AtHook(HookPoint::kSnapshotToExchange);
  if (!slot.CompareExchange(expected, desired)) return false;
  lock.CountWork(
      Handle(slot, gfn, level, old_spte, desired, ChangeMode::kShared).entries);
  return true;
}

Spte SpteUpdater::Update(const MmuWriteLocked& lock, TdpCursor& cursor,
                         Spte desired) {
  MMU_DCHECK(InRcuReadSection());
  MMU_DCHECK(!cursor.old_spte().IsFrozen() && !desired.IsFrozen());
  Spte old_spte = cursor.old_spte();
  const MayUnlink unlinking(cursor.level(), old_spte, desired);
  AtHook(HookPoint::kSnapshotToStore);
  if (cursor.IsPresentLeaf() &&
      (format_.IsVolatile(old_spte) || cursor.level() == Level::k4K)) {
    // The exchange returns a D bit or a fast fault's W that was set since the
    // snapshot; the snapshot does not have it. And a 4K leaf that goes makes
    // the number of leafs unknown, for which Handle requires the exchange.
    old_spte = cursor.slot().Exchange(desired);
  } else {
    cursor.slot().Store(desired);
  }
  cursor.SetOldSpte(desired);
  lock.CountWork(Handle(cursor.slot(), cursor.gfn(), cursor.level(), old_spte,
                        desired, ChangeMode::kExclusive)
                     .entries);
  return old_spte;
}

// RACE-11 in write mode. No other thread changes the entry, but
//   1. this thread reads the entry and makes `desired` from it
//   2. the processor sets Accessed or Dirty in the entry
//   3. this thread writes `desired`
// If 3 were a store, the bit set by 2 would be lost. So 3 is a compare-exchange
// that fails, and the caller starts again with the current entry.
bool SpteUpdater::TryUpdate(const MmuWriteLocked& lock, TdpCursor& cursor,
                            Spte desired) {
  MMU_DCHECK(InRcuReadSection());
  MMU_DCHECK(!cursor.old_spte().IsFrozen() && !desired.IsFrozen());
  const Spte old_spte = cursor.old_spte();
  Spte expected = old_spte;
  const MayUnlink unlinking(cursor.level(), old_spte, desired);
  AtHook(HookPoint::kSnapshotToStore);
  const bool won = cursor.slot().CompareExchange(expected, desired);
  cursor.SetOldSpte(won ? desired : expected);
  if (!won) return false;
  lock.CountWork(Handle(cursor.slot(), cursor.gfn(), cursor.level(), old_spte,
                        desired, ChangeMode::kExclusive)
                     .entries);
  return true;
}

// RACE-11 in the other direction: many small leafs become one.
//   1. this thread looks at the small leafs: none was accessed
//   2. the processor sets Accessed in one of them
//   3. this thread links the huge leaf, not accessed, and tears down the table
// The exchange that ends each small leaf returns the bit that 2 has set, and
// the huge leaf then gets Accessed. If another thread changed the huge leaf in
// between, that change stays.
bool SpteUpdater::Collapse(const MmuReadLocked& lock, TdpCursor& cursor,
                           Spte huge) {
  MMU_DCHECK(InRcuReadSection());
  MMU_DCHECK(cursor.IsPresentTable());
  const Spte table = cursor.old_spte();
  Spte expected = table;
  const MayUnlink unlinking(cursor.level(), table, huge);
  AtHook(HookPoint::kChosenToLink);
  if (!cursor.slot().CompareExchange(expected, huge)) {
    cursor.SetOldSpte(expected);
    return false;
  }
  const Changes::Removed removed =
      Handle(cursor.slot(), cursor.gfn(), cursor.level(), table, huge,
             ChangeMode::kShared);
  lock.CountWork(removed.entries);
  cursor.SetOldSpte(huge);
  const bool was_used = (removed.leaf_bits & format_.accessed_mask()) != 0;
  while (was_used && cursor.IsPresentLeaf() &&
         !format_.IsAccessed(cursor.old_spte())) {
    const Spte used = format_.IsAccessTracked(cursor.old_spte())
                          ? format_.WithAccessRestored(cursor.old_spte())
                          : format_.WithAccessed(cursor.old_spte());
    Spte now = cursor.old_spte();
    if (cursor.slot().CompareExchange(now, used)) now = used;
    cursor.SetOldSpte(now);
  }
  return true;
}

void SpteUpdater::PrepareChild(const TdpCursor& cursor,
                               ShadowPage& page) const {
  const ShadowPage* parent =
      TablePool::DescriptorOf(TableHolding(cursor.slot()));
  page.role = parent->role.Child();
  page.gfn = cursor.gfn();
  page.parent = &cursor.slot();
  page.leaf_count.Reset();
  page.nx_huge_page_disallowed.store(false, std::memory_order_relaxed);
}

}  // namespace mmu
