// Removing the shadow MMU's mappings of a memslot: because the host changes the
// pages behind the slot, or because the slot is deleted.

#ifndef MMU_CORE_SHADOW_SHADOW_UNMAP_H_
#define MMU_CORE_SHADOW_SHADOW_UNMAP_H_

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_page_set.h"
#include "mmu_core/shadow/shadow_zap.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// No effect on a slot without rmaps. Functions that release the lock in between
// REQUIRE that the slot stays meanwhile: by slots_lock, or by an announced
// invalidation (SLOT-23). `cost` may be null. Thread-safe under the locks that
// the witnesses name.
class ShadowUnmap {
 public:
  ShadowUnmap(const ShadowParts& parts, const ShadowPageSet& set,
              ShadowLinks& links, ShadowZap& zap)
      : parts_(parts), set_(set), links_(links), zap_(zap) {}
  ShadowUnmap(const ShadowUnmap&) = delete;
  ShadowUnmap& operator=(const ShadowUnmap&) = delete;

  // Zaps every leaf that maps a page of `range`, a part of the slot; a larger
  // leaf as a whole. Flushes before it yields and once at the end if it zapped
  // anything (SHD-18, TLB-06). Shadow pages stay. True if anything was zapped.
  bool ZapLeafs(MmuWriteLocked& lock, const Memslot& slot, GfnRange range,
                FlushReason reason, MmuCost* cost,
                MayYield may_yield = MayYield::kYes);

  // Zaps and commits the pages that shadow guest tables in the slot: they
  // write-track its gfns, which cannot be undone once the slot is gone. A root
  // in use becomes an invalid root. REQUIRES: no new such page can be made, as
  // the slot is invalid (SLOT-25); slots_lock.
  void ZapGuestTables(MmuWriteLocked& lock, const Memslot& slot, MmuCost* cost);

 private:
  const ShadowParts parts_;
  const ShadowPageSet& set_;
  ShadowLinks& links_;
  ShadowZap& zap_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_UNMAP_H_
