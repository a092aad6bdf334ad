#include "mmu_core/tdp/spte_update.h"

#include <optional>

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
#include "mmu_core/sync/refill.h"

namespace mmu {
namespace {

// A change that may unlink a table. It lasts from before the change until the
// table was handed to RCU; threads that lack tables wait for its end.
class MayUnlink {
 public:
  MayUnlink(Level level, Spte old_spte, Spte desired) {
    if (old_spte.IsPresentTable(level) && !desired.IsPresentTable(level) &&
        !Reclaim::ThisThreadHasOne()) {
      reclaim_.emplace();
    }
  }

 private:
  std::optional<Reclaim> reclaim_;
};

}  // namespace

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
  lock.CountWork(HandleChanged(cursor.gfn(), cursor.level(), old_spte, desired,
                               Mode::kShared)
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
      HandleChanged(gfn, level, old_spte, desired, Mode::kShared).entries);
  return true;
}

Spte SpteUpdater::Update(const MmuWriteLocked& lock, TdpCursor& cursor,
                         Spte desired) {
  MMU_DCHECK(InRcuReadSection());
  MMU_DCHECK(!cursor.old_spte().IsFrozen() && !desired.IsFrozen());
  Spte old_spte = cursor.old_spte();
  const MayUnlink unlinking(cursor.level(), old_spte, desired);
  AtHook(HookPoint::kSnapshotToStore);
  if (cursor.IsPresentLeaf() && format_.IsVolatile(old_spte)) {
    // The exchange returns a D bit or a fast fault's W that was set since the
    // snapshot; the snapshot does not have it.
    old_spte = cursor.slot().Exchange(desired);
  } else {
    cursor.slot().Store(desired);
  }
  cursor.SetOldSpte(desired);
  lock.CountWork(HandleChanged(cursor.gfn(), cursor.level(), old_spte, desired,
                               Mode::kExclusive)
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
  lock.CountWork(HandleChanged(cursor.gfn(), cursor.level(), old_spte, desired,
                               Mode::kExclusive)
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
  const Removed removed =
      HandleChanged(cursor.gfn(), cursor.level(), table, huge, Mode::kShared);
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
  page.nx_huge_page_disallowed.store(false, std::memory_order_relaxed);
}

SpteUpdater::Removed SpteUpdater::HandleChanged(Gfn gfn, Level level,
                                                Spte old_spte, Spte new_spte,
                                                Mode mode) {
  if (old_spte == new_spte) return {};
  const bool was_leaf = old_spte.IsPresentLeaf(level);
  const bool is_leaf = new_spte.IsPresentLeaf(level);

  // A leaf never changes its frame while present: a cached translation would
  // still give the old frame (TDP-27, 1).
  MMU_CHECK(!(was_leaf && is_leaf && old_spte.pfn() != new_spte.pfn()));

  if (was_leaf != is_leaf) counters_.AddLeafs(level, is_leaf ? 1 : -1);

  if (old_spte.IsPresentTable(level) && !new_spte.IsPresentTable(level)) {
    ShadowPage* page = TablePool::DescriptorOf(TableOf(old_spte));
    MMU_DCHECK(page->gfn == gfn);
    return RemoveTable(*page, mode);
  }
  return {.leaf_bits = was_leaf ? old_spte.bits() : 0};
}

// The table is unlinked. Readers that entered before may still walk it, and in
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
// Without 3, 4 would put a leaf into a table that is about to be freed, and its
// page count would never go down. If 4 comes before 3, the exchange returns the
// new leaf and 3's accounting undoes it.
SpteUpdater::Removed SpteUpdater::RemoveTable(ShadowPage& page, Mode mode) {
  const Level level = page.role.level();
  Removed all{.entries = kEntriesPerTable};
  AtHook(HookPoint::kUnlinkToCount);
  TablePool::BeginGracePeriod(page);
  nx_huge_pages_.Forget(page);
  AtHook(HookPoint::kUnlinkToFreeze);
  for (int i = 0; i < kEntriesPerTable; ++i) {
    SpteSlot& slot = page.table->entries[i];
    Spte old_spte;
    if (mode == Mode::kShared) {
      // Another CPU may own the entry for a moment: this thread may not replace
      // a frozen value, so it waits for the owner's value (TDP-28).
      do {
        old_spte = slot.Exchange(Spte::Frozen());
      } while (old_spte.IsFrozen());
    } else {
      old_spte = slot.Load();
      if (!old_spte.IsPresent()) continue;
      old_spte = slot.Exchange(Spte::Frozen());
    }
    const Removed below =
        HandleChanged(page.gfn + static_cast<uint64_t>(i) * PagesPer(level),
                      level, old_spte, Spte::Frozen(), mode);
    all.entries += below.entries;
    all.leaf_bits |= below.leaf_bits;
  }
  counters_.AddTables(-1);
  AtHook(HookPoint::kFreezeToFree);
  TablePool::HandToRcu(page);
  return all;
}

}  // namespace mmu
