// One listing of the tables of a VM, as it goes from MMU to MMU.
//
// Tables are listed while vCPUs run. Work is done in pieces, and a lock or RCU
// section that a piece needs is let go of after it, so tables that come and go
// in between may be listed or not; those that stay are listed once.

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

// How many entries or pages are looked at in one piece.
inline constexpr int64_t kLooksPerPiece = int64_t{1} << 15;

// Thread-compatible.
struct ShadowPageLister {
  const ShadowPageFilter& filter;
  const size_t limit;  // pages.size() ends there; pages.capacity() is as large
  int64_t budget;      // entries and pages that may still be looked at
  ShadowPagePosition position = {};  // of the MMU that lists
  std::vector<ShadowPageInfo>& pages;

  bool full() const { return pages.size() == limit; }
  // Whether a page of this gfn and role is to be listed.
  bool Passes(Gfn gfn, PageRole role) const;
};

// Where the entry is.
EntryPlace PlaceOf(const SpteSlot& slot);

// The page as its table is at this moment; without parents.
ShadowPageInfo Describe(const ShadowPage& page, MmuKind owner);

}  // namespace mmu

#endif  // MMU_CORE_MMU_SHADOW_PAGE_LISTER_H_
