// Noting in a slot's dirty log that a page was, or may from now on be, written.

#ifndef MMU_CORE_MEMORY_MARK_DIRTY_H_
#define MMU_CORE_MEMORY_MARK_DIRTY_H_

#include "mmu_core/base/address.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/memory/memslot.h"

namespace mmu {

// Notes that `gfn` is dirty, on behalf of the vCPU whose ring is `ring` (null:
// the VM has no rings, or no vCPU runs): in the ring if there is one, else in
// the slot's bitmap if it has one, else nowhere; nowhere either if the slot
// does not log (SLOT-53). True if the page was clean; a ring does not know and
// says so always. Lock-free; when it returns, every later harvest or seal finds
// the mark. REQUIRES: slot.Contains(gfn); the calling thread is that of the
// ring's vCPU.
bool MarkPageDirty(const Memslot& slot, Gfn gfn, DirtyRing* ring);

// A seam for tests that must see what a lost mark leads to. Defined only by
// //mmu_core/testing:fault_injection; a program that does not link it has no
// such function and loses nothing. True: drop this clean-to-dirty mark.
__attribute__((weak)) bool ShouldDropDirtyMark(const Memslot& slot, Gfn gfn);

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_MARK_DIRTY_H_
