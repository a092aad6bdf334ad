// Lists the pages of tables of a VM while its vCPUs run.
//
// Each function goes on from `position` and appends to `pages`, which has room
// for `limit` (nothing is allocated here), until that many are there, until
// there are no more, or until `budget`, in entries and pages looked at, is used
// up. It returns true if it came to the end. Work is done in pieces, and what a
// piece needs to be held is let go after each, so pages that come and go in
// between may be listed or not; those that stay are listed once, but for the
// ones behind which pages of the same chain of the hash go.

#ifndef MMU_CORE_VM_INSPECT_SHADOW_PAGE_LIST_H_
#define MMU_CORE_VM_INSPECT_SHADOW_PAGE_LIST_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mmu_core/shadow/shadow_page_set.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tdp/tdp_root.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/inspect/shadow_page_info.h"

namespace mmu {

// How many entries or pages are looked at in one piece.
inline constexpr int64_t kLooksPerPiece = int64_t{1} << 15;

// How many tables a listing may have.
inline constexpr size_t kMaxListedTables = 1000;

// Vm::ListShadowPages: tables of all MMUs.
ShadowPageListing ListShadowPages(VmCore& vm, const ShadowPageFilter& filter,
                                  const ShadowPagePosition& from, size_t limit);

// The TDP MMU's tables, root by root, in the order of a walk. In RCU read
// sections, without mmu_lock.
bool ListTdpPages(const RootList& roots, const ShadowPageFilter& filter,
                  size_t limit, int64_t& budget, ShadowPagePosition& position,
                  std::vector<ShadowPageInfo>& pages);

// Shadow pages, chain by chain of the hash. Under mmu_lock in read mode.
bool ListShadowMmuPages(MmuLock& lock, const ShadowPageSet& set,
                        const ShadowPageFilter& filter, size_t limit,
                        int64_t& budget, ShadowPagePosition& position,
                        std::vector<ShadowPageInfo>& pages);

}  // namespace mmu

#endif  // MMU_CORE_VM_INSPECT_SHADOW_PAGE_LIST_H_
