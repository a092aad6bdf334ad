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

bool SpteUpdater::Update(const MmuReadLocked&, TdpCursor& cursor,
                         Spte desired) {
  MMU_DCHECK(InRcuReadSection());
  MMU_DCHECK(!cursor.old_spte().IsFrozen());
  const Spte old_spte = cursor.old_spte();
  Spte expected = old_spte;
  AtHook(HookPoint::kSnapshotToExchange);
  const bool won = cursor.slot().CompareExchange(expected, desired);
  cursor.SetOldSpte(won ? desired : expected);
  if (!won) return false;
  HandleChanged(cursor.gfn(), cursor.level(), old_spte, desired, Mode::kShared);
  return true;
}

bool SpteUpdater::UpdateOnce(const MmuReadLocked&, SpteSlot& slot, Gfn gfn,
                             Level level, Spte expected, Spte desired) {
  MMU_DCHECK(InRcuReadSection());
  const Spte old_spte = expected;
  AtHook(HookPoint::kSnapshotToExchange);
  if (!slot.CompareExchange(expected, desired)) return false;
  HandleChanged(gfn, level, old_spte, desired, Mode::kShared);
  return true;
}

Spte SpteUpdater::Update(const MmuWriteLocked&, TdpCursor& cursor,
                         Spte desired) {
  MMU_DCHECK(InRcuReadSection());
  MMU_DCHECK(!cursor.old_spte().IsFrozen() && !desired.IsFrozen());
  Spte old_spte = cursor.old_spte();
  AtHook(HookPoint::kSnapshotToStore);
  if (cursor.IsPresentLeaf() && format_.IsVolatile(old_spte)) {
    // A D bit set or a fast fault made since the snapshot is in the value that
    // the exchange returns, not in the snapshot.
    old_spte = cursor.slot().Exchange(desired);
  } else {
    cursor.slot().Store(desired);
  }
  cursor.SetOldSpte(desired);
  HandleChanged(cursor.gfn(), cursor.level(), old_spte, desired,
                Mode::kExclusive);
  return old_spte;
}

void SpteUpdater::PrepareChild(const TdpCursor& cursor,
                               ShadowPage& page) const {
  const ShadowPage* parent =
      TablePool::DescriptorOf(TableHolding(cursor.slot()));
  page.role = parent->role.Child();
  page.gfn = cursor.gfn();
  page.parent = &cursor.slot();
  page.nx_huge_page_disallowed.store(false, std::memory_order_relaxed);
}

void SpteUpdater::HandleChanged(Gfn gfn, Level level, Spte old_spte,
                                Spte new_spte, Mode mode) {
  if (old_spte == new_spte) return;
  const bool was_leaf = old_spte.IsPresentLeaf(level);
  const bool is_leaf = new_spte.IsPresentLeaf(level);

  // A leaf never changes its frame while present: somebody would go on using
  // the old one through a cached translation (TDP-27, 1).
  MMU_CHECK(!(was_leaf && is_leaf && old_spte.pfn() != new_spte.pfn()));

  if (was_leaf != is_leaf) counters_.AddLeafs(level, is_leaf ? 1 : -1);

  if (old_spte.IsPresentTable(level) && !new_spte.IsPresentTable(level)) {
    ShadowPage* page = TablePool::DescriptorOf(TableOf(old_spte));
    MMU_DCHECK(page->gfn == gfn);
    RemoveTable(*page, mode);
  }
}

// The table is unlinked; readers that entered before may still walk it, and in
// shared mode may still try to change it. Each entry gets the frozen value, so
// that their compare-exchange fails and the fault retries from the top:
//
//   CPU 0 (fault)                       CPU 1 (zap)
//   1. enters the table, reads entry:
//      not present
//                                       2. unlinks the table
//                                       3. exchanges the entry with frozen
//   4. compare-exchange expects "not
//      present", finds frozen: fails
//   5. retries, does not find the table
//
// Were 3 missing, 4 would put a leaf into a table that is about to be freed,
// and its page count would never go down. If 4 comes before 3, the exchange
// returns the new leaf and 3's bookkeeping takes it back.
void SpteUpdater::RemoveTable(ShadowPage& page, Mode mode) {
  const Level level = page.role.level();
  nx_huge_pages_.Forget(page);
  AtHook(HookPoint::kUnlinkToFreeze);
  for (int i = 0; i < kEntriesPerTable; ++i) {
    SpteSlot& slot = page.table->entries[i];
    Spte old_spte;
    if (mode == Mode::kShared) {
      // Another CPU may own the entry for a moment: a frozen value is not ours
      // to replace, so wait for what its owner puts there (TDP-28).
      do {
        old_spte = slot.Exchange(Spte::Frozen());
      } while (old_spte.IsFrozen());
    } else {
      old_spte = slot.Load();
      if (!old_spte.IsPresent()) continue;
      old_spte = slot.Exchange(Spte::Frozen());
    }
    HandleChanged(page.gfn + static_cast<uint64_t>(i) * PagesPer(level), level,
                  old_spte, Spte::Frozen(), mode);
  }
  counters_.AddTables(-1);
  AtHook(HookPoint::kFreezeToFree);
  TablePool::ReturnAfterGracePeriod(page);
}

}  // namespace mmu
