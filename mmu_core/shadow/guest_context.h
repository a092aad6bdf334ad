// What of a vCPU the shadow MMU works with: how its guest pages, where the
// guest's tables are, and what building pages for it may consume.

#ifndef MMU_CORE_SHADOW_GUEST_CONTEXT_H_
#define MMU_CORE_SHADOW_GUEST_CONTEXT_H_

#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/shadow/shadow_caches.h"

namespace mmu {

// References to parts of one vCPU; made anew when its role changes.
// Externally synchronised: belongs to the vCPU's thread.
struct GuestContext {
  // Reads the guest's tables; walker.role() is the vCPU's CPU role. Without
  // guest tables (paging off, or TDP hardware) its guest_level is 0.
  const GuestWalker& walker;
  // Where they are: by guest-physical address, for L2's tables of L1.
  GuestWords& memory;
  // Of the roots that belong to walker.role().
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
