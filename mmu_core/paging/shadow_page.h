// A page-table page and its descriptor.
//
// A `PageTable` is the 4 KiB that a vCPU walks: 512 entries, nothing else. Its
// `ShadowPage` says what it is: where it hangs, what it maps. Both live in the
// table pool (paging/table_pool.h), which can find the one from the other by
// arithmetic, so an SPTE that points at a table leads to its descriptor.

#ifndef MMU_CORE_PAGING_SHADOW_PAGE_H_
#define MMU_CORE_PAGING_SHADOW_PAGE_H_

#include <atomic>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/entry_table.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

struct ShadowPageState;
class TablePool;

using PageTable = EntryTable<X86Geometry, Spte>;
static_assert(sizeof(PageTable) == kPageSize);

// Written by whoever prepares the page before it is linked, constant from then
// on until it is freed, but for the members that say otherwise. Hence
// thread-compatible and readable without a lock by anyone who reached it
// through a link.
struct ShadowPage {
  PageRole role;
  Gfn gfn;                     // first gfn that the page covers
  PageTable* table = nullptr;  // set by the pool, constant
  TablePool* pool = nullptr;   // where it goes back to, constant
  union {
    // Of the TDP MMU: the entry that points here; null for a root.
    SpteSlot* parent = nullptr;
    // Of the shadow MMU, whose pages may hang at many places: all the rest
    // (shadow/shadow_page_state.h).
    ShadowPageState* state;
  };
  ShadowPage* next_free = nullptr;  // used by the pool and the caches only
  RcuHook rcu;                      // in use once the page was unlinked

  // Small pages stand here because one of them is executed (SPTE-51). Cleared,
  // and the others changed, under the lock of mmu/nx_huge_pages.h.
  std::atomic<bool> nx_huge_page_disallowed{false};
  bool nx_listed = false;
  ShadowPage* nx_older = nullptr;
  ShadowPage* nx_newer = nullptr;
};

// The table that a present non-leaf SPTE points at.
inline PageTable* TableOf(Spte spte) {
  return reinterpret_cast<PageTable*>(spte.address());
}

// The table that `slot` is an entry of, and which entry.
inline const PageTable* TableHolding(const SpteSlot& slot) {
  return reinterpret_cast<const PageTable*>(reinterpret_cast<uintptr_t>(&slot) &
                                            ~uintptr_t{sizeof(PageTable) - 1});
}
inline int IndexInTable(const SpteSlot& slot) {
  return static_cast<int>(
      (reinterpret_cast<uintptr_t>(&slot) & (sizeof(PageTable) - 1)) /
      sizeof(SpteSlot));
}

}  // namespace mmu

#endif  // MMU_CORE_PAGING_SHADOW_PAGE_H_
