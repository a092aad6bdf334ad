#include "mmu_core/tlb/paging_structure_cache.h"

#include "mmu_core/base/with_memory.h"

namespace mmu {

std::optional<CachedTable> PagingStructureCache::Find(PageNumber page,
                                                      Level top) {
  for (Level level = Level::k4K; level < top; level = ParentOf(level)) {
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

void PagingStructureCache::Insert(const CachedTable& table) {
  if (Chance()) return;
  // Without memory the table is not cached.
  static_cast<void>(TryWithMemory([&] {
    tables_[KeyOf(context_, table.first, table.level)] = table;
    return true;
  }));
}

void PagingStructureCache::DropPage(uint64_t context, PageNumber page) {
  for (Level level = Level::k4K; level < X86Geometry::kMaxLevel;
       level = ParentOf(level)) {
    tables_.erase(KeyOf(context, page, level));
  }
}

void PagingStructureCache::DropContext(uint64_t context) {
  std::erase_if(tables_, [context](const auto& entry) {
    return entry.first.context == context;
  });
}

void PagingStructureCache::DropRange(PageNumber first, PageNumber end) {
  std::erase_if(tables_, [first, end](const auto& entry) {
    const CachedTable& table = entry.second;
    return table.first < end &&
           first < table.first + PagesPer(ParentOf(table.level));
  });
}

}  // namespace mmu
