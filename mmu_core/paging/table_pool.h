// The pool of the x86 MMUs' page tables.

#ifndef MMU_CORE_PAGING_TABLE_POOL_H_
#define MMU_CORE_PAGING_TABLE_POOL_H_

#include "mmu_core/paging/basic_table_pool.h"  // IWYU pragma: export
#include "mmu_core/paging/shadow_page.h"

namespace mmu {

extern template class BasicTablePool<ShadowPage>;

}  // namespace mmu

#endif  // MMU_CORE_PAGING_TABLE_POOL_H_
