// Testing and clearing Accessed bits of the shadow MMU's leafs (AGE-14).

#ifndef MMU_CORE_SHADOW_SHADOW_AGE_H_
#define MMU_CORE_SHADOW_SHADOW_AGE_H_

#include "mmu_core/aging/aging.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/stats/mmu_cost.h"

namespace mmu {

// Thread-safe.
class ShadowAge {
 public:
  explicit ShadowAge(const ShadowParts& parts) : parts_(parts) {}
  ShadowAge(const ShadowAge&) = delete;
  ShadowAge& operator=(const ShadowAge&) = delete;

  // Tests, or tests and clears, the Accessed bits of the leafs that map pages
  // of `pages`, a part of the slot. Sets the bits of mapped and of young pages
  // in `result`, whose bitmaps both cover `range` around `pages`; bits that
  // another MMU set stay. CountPages computes the counts. mmu_lock is not
  // needed: each rmap is locked by its bit. No flush (AGE-16). No effect on a
  // slot without rmaps. REQUIRES: an RCU read section, in which the slot was
  // found.
  void Age(const Memslot& slot, GfnRange pages, GfnRange range, AgeMode mode,
           AgeResult& result, MmuCost* cost) const;

 private:
  const ShadowParts parts_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_AGE_H_
