// Marks a page in a slot's dirty log that was written, or may be written from
// now on.

#ifndef MMU_CORE_MEMORY_MARK_DIRTY_H_
#define MMU_CORE_MEMORY_MARK_DIRTY_H_

#include "mmu_core/base/address.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/memory/memslot.h"

namespace mmu {

// Marks `gfn` dirty, on behalf of the vCPU whose ring is `ring` (null: the VM
// has no rings, or no vCPU runs). The mark goes into the ring if there is one,
// else into the slot's bitmap if it has one. A slot that does not log gets no
// mark at all (SLOT-53). Returns true if the page was clean; with a ring always
// true, since a ring does not record which pages are dirty already. Lock-free.
// After the return every later harvest or seal finds the mark. REQUIRES:
// slot.Contains(gfn); the calling thread is that of the ring's vCPU.
bool MarkPageDirty(const Memslot& slot, Gfn gfn, DirtyRing* ring);

// A hook for tests that must see the effect of a lost mark. Defined only by
// //mmu_core/testing:fault_injection; a program that does not link it has no
// such function and loses no mark. True: drop this clean-to-dirty mark.
__attribute__((weak)) bool ShouldDropDirtyMark(const Memslot& slot, Gfn gfn);

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_MARK_DIRTY_H_
