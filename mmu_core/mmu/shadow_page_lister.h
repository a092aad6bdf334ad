// The state of one listing of the tables of a VM, passed from MMU to MMU.
//
// Tables are listed while vCPUs run. The work is done in pieces; the lock or
// RCU section of a piece is released after it. So tables that are made or freed
// in between may or may not be listed; tables that stay are listed once.

#ifndef MMU_CORE_MMU_SHADOW_PAGE_LISTER_H_
#define MMU_CORE_MMU_SHADOW_PAGE_LISTER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/mmu/shadow_page_info.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/stats/labels.h"

namespace mmu {

// The number of entries or pages visited in one piece.
inline constexpr int64_t kLooksPerPiece = int64_t{1} << 15;

// Thread-compatible.
struct ShadowPageLister {
  const ShadowPageFilter& filter;
  const size_t limit;  // of pages.size(); pages.capacity() is as large
  int64_t budget;      // entries and pages that may still be visited
  ShadowPagePosition position = {};  // of the MMU that is listed
  std::vector<ShadowPageInfo>& pages;

  bool full() const { return pages.size() == limit; }
  // Whether a page with this gfn and role is to be listed.
  bool Passes(Gfn gfn, PageRole role) const;
};

// The table and index of the entry.
EntryPlace PlaceOf(const SpteSlot& slot);

// Describes the page and the current contents of its table; without parents.
ShadowPageInfo Describe(const ShadowPage& page, MmuKind owner);

}  // namespace mmu

#endif  // MMU_CORE_MMU_SHADOW_PAGE_LISTER_H_
