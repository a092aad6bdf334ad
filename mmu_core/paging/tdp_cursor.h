// The walk over the SPTEs of a TDP root, and the traits of x86 page tables.

#ifndef MMU_CORE_PAGING_TDP_CURSOR_H_
#define MMU_CORE_PAGING_TDP_CURSOR_H_

#include "mmu_core/base/level.h"
#include "mmu_core/paging/page_table_cursor.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/table_pool.h"

namespace mmu {

// The traits of EPT and NPT.
struct X86Paging {
  using Geometry = X86Geometry;
  using Entry = Spte;
  using Page = ShadowPage;
  using Pool = TablePool;
  static PageTable* TableOf(Spte spte) { return mmu::TableOf(spte); }
  static Level LevelOf(const ShadowPage& page) { return page.role.level(); }
};

using TdpCursor = PageTableCursor<X86Paging>;

}  // namespace mmu

#endif  // MMU_CORE_PAGING_TDP_CURSOR_H_
