// Making way for huge pages in the shadow MMU, once a slot no longer logs
// (SHD-82).

#ifndef MMU_CORE_SHADOW_SHADOW_RECOVER_H_
#define MMU_CORE_SHADOW_SHADOW_RECOVER_H_

#include <cstdint>

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/huge_page_outcomes.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {

// Thread-safe with the witnesses named.
class ShadowRecover {
 public:
  // `max_page_level`: of the hardware (PF-31).
  ShadowRecover(const ShadowParts& parts, ShadowLinks& links,
                Level max_page_level)
      : parts_(parts), links_(links), max_page_level_(max_page_level) {}
  ShadowRecover(const ShadowRecover&) = delete;
  ShadowRecover& operator=(const ShadowRecover&) = delete;

  // Zaps the leafs that map pages of `range`, a part of the slot, with a
  // smaller size than the guest, the slot and the host allow. Only leafs of
  // direct pages are zapped, since an entry that shadows a guest's entry has
  // the size that the guest chose. The next fault maps the page with its full
  // size. Flushes before it yields and once at the end if it zapped anything.
  // Returns the huge pages made way for, each counted once however many leafs
  // were zapped; a 1G page counts instead of its 2M pages. No effect on a slot
  // without rmaps. It maps nothing, so pages that the host is invalidating need
  // no care: their faults check. REQUIRES: the slot does not log; slots_lock.
  RecoverOutcome Recover(MmuWriteLocked& lock, const Memslot& slot,
                         GfnRange range, MmuCost* cost,
                         const HoldLimit& limit = {});

 private:
  // Zaps all leafs of direct pages in one rmap. Returns the level of the
  // largest page that can replace one of them, at most `allowed`; k4K if it
  // zapped none.
  Level ZapSmallOf(const MmuWriteLocked& lock, const RmapHead& head,
                   Level allowed, TlbFlushBatch& batch, MmuCost* cost);

  const ShadowParts parts_;
  ShadowLinks& links_;
  const Level max_page_level_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_RECOVER_H_
