#include "mmu_core/memory/mark_dirty.h"

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/slot_number.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/memory/memslot.h"

namespace mmu {

bool MarkPageDirty(const Memslot& slot, Gfn gfn, DirtyRing* ring) {
  const uint64_t page = gfn - slot.base_gfn;
  if (ring != nullptr) {
    if (!slot.dirty_log_enabled()) return false;
    if (ShouldDropDirtyMark != nullptr && ShouldDropDirtyMark(slot, gfn)) {
      return false;
    }
    ring->Push({PackSlot(slot.as_id, slot.id), page});
    return true;
  }
  DirtyBitmap* bitmap = slot.dirty_bitmap.get();
  if (bitmap == nullptr) return false;
  if (ShouldDropDirtyMark != nullptr && !bitmap->Test(page) &&
      ShouldDropDirtyMark(slot, gfn)) {
    return false;
  }
  return bitmap->Mark(page);
}

}  // namespace mmu
