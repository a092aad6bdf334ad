// The auditor of shadow pages: what must be true of them whenever mmu_lock is
// not held for a change.
//
//   INV-1  Each active page is in the hash once, and no two of one generation
//          have the same gfn and role.
//   INV-2  Each link leads to an active page one level below, and is in that
//          page's list of parents once; no parent is anything but a link.
//   INV-3  Each leaf is one that its format allows, and is in the rmap of what
//          it maps once; nothing but such leafs is in these rmaps.
//   INV-4  A gfn has as many write trackers as there are active pages above
//          level 1 with guest PTEs for it. No leaf maps it writable then; nor
//          if a page of level 1 stands for it, unless that is unsync.
//   INV-5  What is unsync is marked up to the roots (INV-1 and INV-2 of
//          shadow/unsync_marks.h), and only a page of level 1 with guest PTEs
//          is unsync.
//   INV-6  mmu_unsync is the number of unsync pages, and mmu_shadow_pages at
//          least that of active ones: invalid roots count, too.

#ifndef MMU_CORE_SHADOW_SHADOW_AUDIT_H_
#define MMU_CORE_SHADOW_SHADOW_AUDIT_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "mmu_core/base/level.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_page_set.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

struct ShadowAuditReport {
  std::vector<std::string> violations;  // each names its INV-n and the place
  uint64_t pages_checked = 0;
  // By level; with the other MMUs' leafs they are pages_4k, 2m and 1g.
  std::array<uint64_t, ToInt(kMaxLeafLevel) + 1> leafs{};

  bool ok() const { return violations.empty(); }
};

// Verifies all of the above, for tests and for the auditor of the VM.
// Allocates, so mmu_lock is held for long: not while a guest runs.
ShadowAuditReport AuditShadowPages(const MmuWriteLocked& lock,
                                   const ShadowPageSet& pages,
                                   const ShadowParts& parts);

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_AUDIT_H_
