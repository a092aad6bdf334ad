// The parts of a vCPU that the shadow MMU uses: how its guest pages, where the
// guest's tables are, and the caches from which pages for it are made.

#ifndef MMU_CORE_SHADOW_GUEST_CONTEXT_H_
#define MMU_CORE_SHADOW_GUEST_CONTEXT_H_

#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/shadow/shadow_caches.h"

namespace mmu {

// References to parts of one vCPU; made again when its role changes. Externally
// synchronised: belongs to the vCPU's thread.
struct GuestContext {
  // Reads the guest's tables; walker.role() is the vCPU's CPU role. Without
  // guest tables (paging off, or TDP hardware) its guest_level is 0.
  const GuestWalker& walker;
  // The memory of the guest's tables by guest-physical address; for L2's
  // tables, L1's memory.
  GuestWords& memory;
  // The role of the roots that belong to walker.role().
  PageRole root_role;
  // Topped up for a fault before mmu_lock is taken.
  ShadowCaches& caches;
  // Null if the VM logs into bitmaps.
  DirtyRing* ring = nullptr;

  CpuRole cpu_role() const { return walker.role(); }
  bool has_guest_tables() const { return walker.role().guest_level() != 0; }
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_GUEST_CONTEXT_H_
