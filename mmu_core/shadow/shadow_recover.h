// Making way for huge pages in the shadow MMU, once a slot logs no more
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

  // Zaps the leafs that map pages of `range`, a part of the slot, smaller than
  // the guest, the slot and the host would allow: those of direct pages, since
  // an entry that stands for the guest's has the size that the guest chose. The
  // next fault maps the page with its size. Flushes before it yields and once
  // at the end if it zapped anything. Which huge pages it made way for, each
  // counted once however many leafs went; one of 1G and not the 2M pages in it.
  // No effect on a slot without rmaps. Maps nothing, so it need not care for
  // pages that the host is invalidating: their faults do. REQUIRES: the slot
  // does not log; slots_lock.
  RecoverOutcome Recover(MmuWriteLocked& lock, const Memslot& slot,
                         GfnRange range, MmuCost* cost,
                         const HoldLimit& limit = {});

 private:
  // Zaps all leafs of direct pages in one rmap. The largest page that can come
  // in place of one of them, at most `allowed`; k4K if it zapped none.
  Level ZapSmallOf(const MmuWriteLocked& lock, const RmapHead& head,
                   Level allowed, TlbFlushBatch& batch, MmuCost* cost);

  const ShadowParts parts_;
  ShadowLinks& links_;
  const Level max_page_level_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_RECOVER_H_
