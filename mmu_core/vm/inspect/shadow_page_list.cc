#include "mmu_core/vm/inspect/shadow_page_list.h"

#include <cstdint>

#include "mmu_core/base/check.h"
#include "mmu_core/mmu/shadow_page_lister.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

ShadowPageListing ListShadowPages(VmCore& vm, const ShadowPageFilter& filter,
                                  const ShadowPagePosition& from,
                                  size_t limit) {
  MMU_CHECK(limit <= kMaxListedTables);
  constexpr int64_t kBudget = int64_t{1} << 22;
  ShadowPageListing listing;
  listing.pages.reserve(limit);
  ShadowPageLister lister{.filter = filter,
                          .limit = limit,
                          .budget = kBudget,
                          .position = from,
                          .pages = listing.pages};
  if (!vm.mmus.List(lister)) listing.next = lister.position;
  return listing;
}

}  // namespace mmu
