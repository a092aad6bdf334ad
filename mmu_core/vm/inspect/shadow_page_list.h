// Lists the tables of all MMUs of a VM while its vCPUs run.

#ifndef MMU_CORE_VM_INSPECT_SHADOW_PAGE_LIST_H_
#define MMU_CORE_VM_INSPECT_SHADOW_PAGE_LIST_H_

#include <cstddef>

#include "mmu_core/mmu/shadow_page_info.h"

namespace mmu {

struct VmCore;

// The maximum number of tables in a listing.
inline constexpr size_t kMaxListedTables = 1000;

// Vm::ListShadowPages.
ShadowPageListing ListShadowPages(VmCore& vm, const ShadowPageFilter& filter,
                                  const ShadowPagePosition& from, size_t limit);

}  // namespace mmu

#endif  // MMU_CORE_VM_INSPECT_SHADOW_PAGE_LIST_H_
