// A page-table page and its descriptor.
//
// A `PageTable` is the 4 KiB that a vCPU walks: 512 entries and nothing else.
// Its `ShadowPage` describes it: its role, its gfn, its parent. Both live in
// the table pool (paging/table_pool.h), which computes the address of one from
// that of the other, so an SPTE that points at a table leads to the table's
// descriptor.

#ifndef MMU_CORE_PAGING_SHADOW_PAGE_H_
#define MMU_CORE_PAGING_SHADOW_PAGE_H_

#include <atomic>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/entry_table.h"
#include "mmu_core/paging/known_leaf_count.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

struct ShadowPageState;
struct ShadowPage;
template <typename Page>
class BasicTablePool;
using TablePool = BasicTablePool<ShadowPage>;

using PageTable = EntryTable<X86Geometry, Spte>;
static_assert(sizeof(PageTable) == kPageSize);

// The thread that prepares a page writes the members before it links the page.
// From then until the page is freed they are constant, except where a member's
// comment says otherwise. Hence thread-compatible, and readable without a lock
// by any thread that reached the page through a link.
struct ShadowPage {
  using Table = PageTable;

  PageRole role;
  // TDP MMU, tables of 4K leafs only: how many leafs are present (RACE-55).
  KnownLeafCount leaf_count;
  Gfn gfn;                     // first gfn that the page covers
  PageTable* table = nullptr;  // set by the pool, constant
  TablePool* pool = nullptr;   // the pool to return to, constant
  union {
    // TDP MMU: the entry that points at this page; null for a root.
    SpteSlot* parent = nullptr;
    // Shadow MMU, whose pages may have many parents: all other state
    // (shadow/shadow_page_state.h).
    ShadowPageState* state;
  };
  ShadowPage* next_free = nullptr;  // used by the pool and the caches only
  RcuHook rcu;                      // in use once the page is unlinked

  // This table maps small pages because one of them is executed (SPTE-51). On a
  // linked page, the lock of mmu/nx_huge_pages.h guards clearing the flag and
  // every change of the other nx_ members.
  std::atomic<bool> nx_huge_page_disallowed{false};
  bool nx_listed = false;
  ShadowPage* nx_older = nullptr;
  ShadowPage* nx_newer = nullptr;
};

// The table that a present non-leaf SPTE points at.
inline PageTable* TableOf(Spte spte) {
  return reinterpret_cast<PageTable*>(spte.address());
}

// The table that contains `slot`; the index of `slot` in its table.
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
