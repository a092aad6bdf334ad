// Noting in a slot's dirty log that a page was, or may from now on be, written.

#ifndef MMU_CORE_DIRTY_MARK_DIRTY_H_
#define MMU_CORE_DIRTY_MARK_DIRTY_H_

#include "mmu_core/base/address.h"
#include "mmu_core/memory/memslot.h"

namespace mmu {

// Sets the bit of `gfn` if the slot has a bitmap; else does nothing (SLOT-53).
// True if the page was clean. Lock-free; when it returns the bit can be seen
// by every later seal. REQUIRES: slot.Contains(gfn).
bool MarkPageDirty(const Memslot& slot, Gfn gfn);

// A seam for tests that must see what a lost mark leads to. Defined only by
// //mmu_core/testing:fault_injection; a program that does not link it has no
// such function and loses nothing. True: drop this clean-to-dirty mark.
__attribute__((weak)) bool ShouldDropDirtyMark(const Memslot& slot, Gfn gfn);

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_MARK_DIRTY_H_
