// The paging-structure cache for x86 tables.

#ifndef MMU_CORE_TLB_PAGING_STRUCTURE_CACHE_H_
#define MMU_CORE_TLB_PAGING_STRUCTURE_CACHE_H_

#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/tlb/basic_paging_structure_cache.h"  // IWYU pragma: export

namespace mmu {

using PagingStructureCache = BasicPagingStructureCache<X86Paging>;
using CachedTable = PagingStructureCache::CachedTable;

}  // namespace mmu

#endif  // MMU_CORE_TLB_PAGING_STRUCTURE_CACHE_H_
