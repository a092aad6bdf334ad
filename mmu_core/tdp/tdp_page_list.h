// Listing the TDP MMU's tables while vCPUs run.

#ifndef MMU_CORE_TDP_TDP_PAGE_LIST_H_
#define MMU_CORE_TDP_TDP_PAGE_LIST_H_

#include "mmu_core/mmu/shadow_page_lister.h"
#include "mmu_core/tdp/tdp_root.h"

namespace mmu {

// Appends the tables below `roots`, root by root, in walk order. True if it
// reached the end. Works in RCU read sections, without mmu_lock.
bool ListTdpPages(const RootList& roots, ShadowPageLister& listing);

}  // namespace mmu

#endif  // MMU_CORE_TDP_TDP_PAGE_LIST_H_
