// The memory of one page table: only entries.

#ifndef MMU_CORE_PAGING_ENTRY_TABLE_H_
#define MMU_CORE_PAGING_ENTRY_TABLE_H_

#include <array>

#include "mmu_core/base/table_geometry.h"
#include "mmu_core/paging/entry_slot.h"

namespace mmu {

// Thread-safe, as its slots are.
template <TableGeometry Geometry, typename Entry>
struct alignas(Geometry::kGranuleBytes) EntryTable {
  std::array<EntrySlot<Entry>, Geometry::kEntriesPerTable> entries;

  // REQUIRES: no other thread can see this table.
  void FillUnpublished(Entry value) {
    static_assert(sizeof(EntryTable) == Geometry::kGranuleBytes);
    for (EntrySlot<Entry>& slot : entries) slot.StoreUnpublished(value);
  }
};

}  // namespace mmu

#endif  // MMU_CORE_PAGING_ENTRY_TABLE_H_
