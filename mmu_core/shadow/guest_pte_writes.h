// What the shadow MMU does when a guest's table is written by way of emulation
// (SHD-40..43).

#ifndef MMU_CORE_SHADOW_GUEST_PTE_WRITES_H_
#define MMU_CORE_SHADOW_GUEST_PTE_WRITES_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/shadow/shadow_zap.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// One per VM. Thread-safe.
class GuestPteWrites {
 public:
  GuestPteWrites(const ShadowParts& parts, MmuLock& mmu_lock,
                 ShadowPages& pages)
      : parts_(parts), mmu_lock_(mmu_lock), pages_(pages) {}
  GuestPteWrites(const GuestPteWrites&) = delete;
  GuestPteWrites& operator=(const GuestPteWrites&) = delete;

  // Writes since a page above level 1 was last used, this one included, after
  // which it is taken for no table any more (SHD-41).
  static constexpr int kFlood = 3;

  // To be called after `bytes` (1..8, of one page) at `gpa` of address space
  // `as_id` were written, whatever is there: returns at once if the VM has no
  // indirect pages. Takes mmu_lock for write otherwise, and drops the SPTEs of
  // the entries written; or the whole page, if it does not look as if a table
  // had been written. `memory` reads the entry that is there now.
  void Written(int as_id, Gpa gpa, int bytes, GuestWords& memory,
               MmuCost* cost);

 private:
  // True if an SPTE that was present went.
  bool DropWritten(const MmuWriteLocked& lock, ShadowPageState& page, Gpa gpa,
                   GuestWords& memory, ZappedPages& zapped);

  const ShadowParts parts_;
  MmuLock& mmu_lock_;
  ShadowPages& pages_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_GUEST_PTE_WRITES_H_
