// The only way to change an SPTE of the TDP MMU, with the accounting that every
// change needs.
//
// Under mmu_lock in read mode other threads change entries too, so a change is
// a compare-exchange against the cursor's snapshot (TDP-25). In write mode only
// the hardware's A/D updates and the fast page fault interfere. There, removing
// an entry is a store, or an exchange where those updates matter (TDP-26). A
// new value that keeps anything of the snapshot is a compare-exchange in write
// mode too; otherwise a bit that was set meanwhile would be lost (RACE-11).
// After the change, the old and the new value determine the accounting and the
// tables to be torn down (TDP-27, TDP-28).

#ifndef MMU_CORE_TDP_SPTE_UPDATE_H_
#define MMU_CORE_TDP_SPTE_UPDATE_H_

#include <type_traits>

#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/mmu/entry_changes.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Thread-safe; REQUIRES for every call: an RCU read section (TDP-30).
class SpteUpdater {
 public:
  SpteUpdater(const SpteFormat& format, MmuCounters& counters,
              NxHugePageList& nx_huge_pages)
      : format_(format),
        counters_(counters),
        changes_(counters, Forget{nx_huge_pages}) {}

  // Changes the cursor's entry from its snapshot to `desired`. On success the
  // snapshot becomes `desired`. Returns false in read mode if the entry no
  // longer has the snapshot's value: nothing changed, and the snapshot becomes
  // the entry's current value. REQUIRES: the snapshot is not frozen, the cursor
  // has not yielded.
  [[nodiscard]] bool Update(const MmuReadLocked& lock, TdpCursor& cursor,
                            Spte desired);
  // The same without a cursor, for the entry of `level` at `slot`, which maps
  // from `gfn` on. Makes one attempt (TDP-40).
  [[nodiscard]] bool UpdateOnce(const MmuReadLocked& lock, SpteSlot& slot,
                                Gfn gfn, Level level, Spte expected,
                                Spte desired);
  // In write mode it always succeeds and returns the replaced value, which
  // includes bits that the processor or a fast fault set since the snapshot.
  // Not for a `desired` that was made from the snapshot.
  Spte Update(const MmuWriteLocked& lock, TdpCursor& cursor, Spte desired);
  // For a `desired` made from the snapshot: works as in read mode. Only the
  // processor and fast faults can make it fail, so an entry that was a leaf
  // still is one.
  [[nodiscard]] bool TryUpdate(const MmuWriteLocked& lock, TdpCursor& cursor,
                               Spte desired);
  // Replaces the table of the cursor's entry by the huge leaf `huge`; otherwise
  // like Update. If a small page was accessed before its entry was torn down,
  // the huge leaf becomes accessed (RACE-11).
  [[nodiscard]] bool Collapse(const MmuReadLocked& lock, TdpCursor& cursor,
                              Spte huge);

  // Makes `page` the child of the cursor's entry: sets role, gfn and parent.
  // The caller fills the 512 entries. REQUIRES: no other thread sees `page`.
  void PrepareChild(const TdpCursor& cursor, ShadowPage& page) const;
  // Points the cursor's entry at a prepared child. Works like Update in read
  // mode, in either mode, since the child may have been made from the snapshot.
  // On failure the page still belongs to the caller.
  template <typename Lock>
  [[nodiscard]] bool Link(const Lock& lock, TdpCursor& cursor,
                          ShadowPage& page) {
    const Spte spte = format_.MakeTable(reinterpret_cast<uint64_t>(page.table));
    // Counted before the link: a thread that tears the table down at once then
    // finds it counted.
    counters_.AddTables(1);
    bool linked = false;
    if constexpr (std::is_same_v<Lock, MmuWriteLocked>) {
      linked = TryUpdate(lock, cursor, spte);
    } else {
      linked = Update(lock, cursor, spte);
    }
    if (!linked) counters_.AddTables(-1);
    return linked;
  }

 private:
  struct Forget {
    NxHugePageList& nx_huge_pages;
    void operator()(ShadowPage& page) const { nx_huge_pages.Forget(page); }
  };
  using Changes = EntryChanges<X86Paging, Forget>;

  // What follows from a change of the entry at `slot`. REQUIRES: the change was
  // an atomic read-modify-write if it made a 4K leaf come or go.
  Changes::Removed Handle(const SpteSlot& slot, Gfn gfn, Level level,
                          Spte old_spte, Spte new_spte, ChangeMode mode) const;

  const SpteFormat& format_;
  MmuCounters& counters_;
  const Changes changes_;
};

}  // namespace mmu

#endif  // MMU_CORE_TDP_SPTE_UPDATE_H_
