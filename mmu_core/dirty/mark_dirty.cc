#include "mmu_core/dirty/mark_dirty.h"

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/memory/memslot.h"

namespace mmu {

bool MarkPageDirty(const Memslot& slot, Gfn gfn) {
  DirtyBitmap* bitmap = slot.dirty_bitmap.get();
  if (bitmap == nullptr) return false;
  const uint64_t page = gfn - slot.base_gfn;
  if (ShouldDropDirtyMark != nullptr && !bitmap->Test(page) &&
      ShouldDropDirtyMark(slot, gfn)) {
    return false;
  }
  return bitmap->Mark(page);
}

}  // namespace mmu
