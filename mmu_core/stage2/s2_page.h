// A stage-2 table and its descriptor, and the traits of stage-2 tables.

#ifndef MMU_CORE_STAGE2_S2_PAGE_H_
#define MMU_CORE_STAGE2_S2_PAGE_H_

#include <atomic>

#include "mmu_core/base/address.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/paging/basic_table_pool.h"
#include "mmu_core/paging/entry_slot.h"
#include "mmu_core/paging/entry_table.h"
#include "mmu_core/paging/page_table_cursor.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/stage2/s2_descriptor.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

using S2Slot = EntrySlot<S2Descriptor>;
template <TableGeometry G>
using S2Table = EntryTable<G, S2Descriptor>;

// Describes a table below the root. The thread that prepares a page writes the
// members before it links the page; from then on they are constant, except
// `references`. Thread-compatible.
template <TableGeometry G>
struct S2Page {
  using Table = S2Table<G>;

  Level level{};  // of the table's entries
  Gfn gfn;        // first gfn that the table maps
  Table* table = nullptr;
  BasicTablePool<S2Page>* pool = nullptr;
  // The entry that points at the table, and the page of that entry's table;
  // null if that is a table of the root.
  S2Slot* parent_entry = nullptr;
  S2Page* parent = nullptr;
  // 1, and 1 for each entry that is not empty (ARM-02). Taken before an entry
  // is filled and dropped after it was emptied. Entries are emptied only under
  // mmu_lock in write mode, so there the count is exact, and 1 means that the
  // table is empty. Relaxed: mmu_lock orders the last change of one holder
  // before the next holder's look.
  std::atomic<int> references{1};
  // Whether the table, or one above it, took the place of a block of which only
  // the page of a fault stayed mapped (ARM-35). It stays true as long as the
  // table is there, so a fault on a page that was unmapped later counts as one
  // after the split, too.
  bool lost_block = false;
  S2Page* next_free = nullptr;
  RcuHook rcu;
};

template <TableGeometry G>
using S2Pool = BasicTablePool<S2Page<G>>;
template <TableGeometry G>
using S2Cache = BasicTableCache<S2Page<G>>;

extern template class BasicTablePool<S2Page<Arm4K>>;
extern template class BasicTablePool<S2Page<Arm16K>>;
extern template class BasicTablePool<S2Page<Arm64K>>;

template <TableGeometry G>
struct S2Paging {
  using Geometry = G;
  using Entry = S2Descriptor;
  using Page = S2Page<G>;
  using Pool = S2Pool<G>;
  static S2Table<G>* TableOf(S2Descriptor descriptor) {
    return reinterpret_cast<S2Table<G>*>(descriptor.address());
  }
  static Level LevelOf(const Page& page) { return page.level; }
};

template <TableGeometry G>
using S2Cursor = PageTableCursor<S2Paging<G>>;

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_S2_PAGE_H_
