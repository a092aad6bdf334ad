// Listing shadow pages while vCPUs run.

#ifndef MMU_CORE_SHADOW_SHADOW_PAGE_LIST_H_
#define MMU_CORE_SHADOW_SHADOW_PAGE_LIST_H_

#include "mmu_core/mmu/shadow_page_lister.h"
#include "mmu_core/shadow/shadow_page_set.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Appends the pages of `set`, chain by chain of the hash. True if it reached
// the end. Takes mmu_lock in read mode for each piece. If a page leaves a chain
// between two pieces, a later page of that chain may be missed.
bool ListShadowMmuPages(MmuLock& lock, const ShadowPageSet& set,
                        ShadowPageLister& listing);

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_PAGE_LIST_H_
