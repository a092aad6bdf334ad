// The shadow MMU's reaction to an emulated write to a guest's table
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

  // After this many writes since a page above level 1 was last used, including
  // this one, the page is no longer taken for a table (SHD-41).
  static constexpr int kFlood = 3;

  // To be called after any write of `bytes` (1..8, within one page) at `gpa` of
  // address space `as_id`. Returns at once if the VM has no indirect pages.
  // Otherwise takes mmu_lock for write, and drops the SPTEs of the written
  // entries; or zaps the whole page if the write does not look like a write to
  // a table. `memory` reads the current entry.
  void Written(int as_id, Gpa gpa, int bytes, GuestWords& memory,
               MmuCost* cost);

 private:
  // True if a present SPTE was dropped.
  bool DropWritten(const MmuWriteLocked& lock, ShadowPageState& page, Gpa gpa,
                   GuestWords& memory, ZappedPages& zapped);

  const ShadowParts parts_;
  MmuLock& mmu_lock_;
  ShadowPages& pages_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_GUEST_PTE_WRITES_H_
