// Up to 64 neighbouring pages of one slot, gathered from a dirty ring so that
// they are write-protected again in one step (DL-43).

#ifndef MMU_CORE_DIRTY_DIRTY_WINDOW_H_
#define MMU_CORE_DIRTY_DIRTY_WINDOW_H_

#include <cstdint>

#include "mmu_core/dirty/dirty_ring.h"

namespace mmu {

// A value.
struct DirtyWindow {
  uint32_t slot = 0;    // base/slot_number.h
  uint64_t offset = 0;  // pages from the slot's start to bit 0
  uint64_t mask = 0;    // bit i is page offset + i; never 0

  static DirtyWindow Of(DirtyGfn page) { return {page.slot, page.offset, 1}; }

  // Adds the page if it fits: it lies within 64 pages from `offset`, or lies
  // before `offset` and the mask can be shifted up without losing a page.
  // Returns false and changes nothing if it does not fit.
  bool Add(DirtyGfn page) {
    if (page.slot != slot) return false;
    if (page.offset >= offset) {
      const uint64_t forward = page.offset - offset;
      if (forward >= 64) return false;
      mask |= uint64_t{1} << forward;
      return true;
    }
    const uint64_t back = offset - page.offset;
    if (back >= 64 || (mask << back >> back) != mask) return false;
    offset = page.offset;
    mask = mask << back | 1;
    return true;
  }

  friend bool operator==(const DirtyWindow&, const DirtyWindow&) = default;
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_DIRTY_WINDOW_H_
