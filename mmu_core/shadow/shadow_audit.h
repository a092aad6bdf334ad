// The shadow MMU's part of an audit (vm/inspect/audit.h): INV-1, INV-3, INV-7,
// INV-11, INV-12 and INV-13 of its pages, INV-2 of its leafs, INV-8 of its list
// of executed pages. It passes leafs, guests' tables and MMIO SPTEs on.

#ifndef MMU_CORE_SHADOW_SHADOW_AUDIT_H_
#define MMU_CORE_SHADOW_SHADOW_AUDIT_H_

#include "mmu_core/mmu/audit_sink.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Walks every page and every rmap. `parts` are those of `pages`; `listed`, the
// pages that were executed from, is null without the mitigation. Allocates, so
// mmu_lock is held for long: not while a guest runs. REQUIRES: an RCU read
// section.
void AuditShadow(const MmuWriteLocked& lock, const ShadowPages& pages,
                 const ShadowParts& parts, const NxHugePageList* listed,
                 AuditSink& sink);

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_AUDIT_H_
