#include "mmu_core/memory/memslot.h"

#include <algorithm>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"

namespace mmu {

Hva Memslot::HvaOf(Gfn gfn) const {
  MMU_DCHECK(Contains(gfn));
  return hva + ((gfn - base_gfn) << kPageShift);
}

Pfn Memslot::PfnOf(Gfn gfn) const {
  MMU_CHECK(backing != nullptr);
  return backing->PfnOf(HvaOf(gfn));
}

Level Memslot::MaxMappingLevel(Gfn gfn, Level max) const {
  const Level host =
      backing == nullptr ? Level::k4K : backing->host_page_level();
  // The host maps 4 KiB pages only: the counters need not be read.
  if (host == Level::k4K) return Level::k4K;
  Level level = std::min(max, kMaxLeafLevel);
  while (level > Level::k4K && lpage_info->Disallowed(gfn, level)) {
    level = ChildOf(level);
  }
  level = std::min(level, host);
  // The host maps small where a part of the page is missing or read-only.
  return backing->all_writable() ? level
                                 : backing->MappingLevel(HvaOf(gfn), level);
}

}  // namespace mmu
