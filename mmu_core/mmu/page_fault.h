// One page fault on its way through the handler: the vCPU's access, the memslot
// of the gfn, and the level at which to map the page.

#ifndef MMU_CORE_MMU_PAGE_FAULT_H_
#define MMU_CORE_MMU_PAGE_FAULT_H_

#include <cstdint>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"

namespace mmu {

// A value; belongs to the faulting vCPU's thread.
struct PageFault {
  // Known when the vCPU exits.
  Gfn gfn;
  AccessKind kind = AccessKind::kRead;
  // The hardware found a present entry that forbids the access, as opposed to
  // no entry at all.
  bool present = false;
  // The page is mapped before the guest accessed it (PF-41, SPTE-11).
  Prefetched prefetched = Prefetched::kNo;
  // The faulting vCPU's ring; null if the VM logs into bitmaps.
  DirtyRing* ring = nullptr;

  // Resolved before mmu_lock is taken (PF-20..23).
  const Memslot* slot = nullptr;
  uint64_t invalidate_sequence = 0;  // taken before the frame was resolved
  Pfn pfn;                           // of `gfn`, then of `gfn` at goal_level
  HostWritable map_writable = HostWritable::kNo;

  // Chosen under mmu_lock (PF-30).
  Level max_level = kMaxLeafLevel;  // of the hardware (PF-31)
  Level req_level = Level::k4K;
  Level goal_level = Level::k4K;
  // The page is executed and the NX huge page mitigation is on: map small
  // pages, even if the slot allows huge ones (SPTE-51).
  bool huge_page_disallowed = false;

  // Without a slot: the MMIO SPTE to install (SPTE-41).
  Spte mmio;

  // The effects of the fault, for statistics.
  bool mmio_spte_created = false;
  bool split_huge_page = false;
  // Stage 2: the page had lost its mapping to the split of its block by another
  // fault (ARM-35).
  bool after_split = false;
  int dirtied_pages = 0;  // 4 KiB pages: clean -> dirty by this fault
};

}  // namespace mmu

#endif  // MMU_CORE_MMU_PAGE_FAULT_H_
