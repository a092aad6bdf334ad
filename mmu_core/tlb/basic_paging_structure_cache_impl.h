// The implementation of BasicPagingStructureCache, for the files that
// instantiate it.

#ifndef MMU_CORE_TLB_BASIC_PAGING_STRUCTURE_CACHE_IMPL_H_
#define MMU_CORE_TLB_BASIC_PAGING_STRUCTURE_CACHE_IMPL_H_

#include <optional>

#include "mmu_core/base/address.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/paging/paging_traits.h"
#include "mmu_core/tlb/basic_paging_structure_cache.h"

namespace mmu {

template <PagingTraits Traits>
auto BasicPagingStructureCache<Traits>::Find(PageNumber page, Level top)
    -> std::optional<CachedTable> {
  for (Level level{1}; level < top; level = ParentOf(level)) {
    const auto found = tables_.find(KeyOf(context_, page, level));
    if (found == tables_.end()) continue;
    if (Chance()) {
      tables_.erase(found);
      continue;
    }
    return found->second;
  }
  return std::nullopt;
}

template <PagingTraits Traits>
void BasicPagingStructureCache<Traits>::Insert(const CachedTable& table) {
  if (Chance()) return;
  // Without memory the table is not cached.
  static_cast<void>(TryWithMemory([&] {
    tables_[KeyOf(context_, table.first, table.level)] = table;
    return true;
  }));
}

template <PagingTraits Traits>
void BasicPagingStructureCache<Traits>::DropPage(uint64_t context,
                                                 PageNumber page) {
  for (Level level{1}; level < Geometry::kMaxLevel; level = ParentOf(level)) {
    tables_.erase(KeyOf(context, page, level));
  }
}

template <PagingTraits Traits>
void BasicPagingStructureCache<Traits>::DropContext(uint64_t context) {
  std::erase_if(tables_, [context](const auto& entry) {
    return entry.first.context == context;
  });
}

template <PagingTraits Traits>
void BasicPagingStructureCache<Traits>::DropRange(PageNumber first,
                                                  PageNumber end) {
  std::erase_if(tables_, [first, end](const auto& entry) {
    const CachedTable& table = entry.second;
    return table.first < end &&
           first < table.first + PagesPer<Geometry>(ParentOf(table.level));
  });
}

}  // namespace mmu

#endif  // MMU_CORE_TLB_BASIC_PAGING_STRUCTURE_CACHE_IMPL_H_
