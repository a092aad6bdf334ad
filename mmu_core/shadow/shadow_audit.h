// The auditor of shadow pages. Its invariants hold whenever mmu_lock is not
// held for a change.
//
//   INV-1  Each active page is in the hash once, and no two pages of one
//          generation have the same gfn and role.
//   INV-2  Each link points at an active page one level below, and is in that
//          page's parent list once; parent lists contain only links.
//   INV-3  Each leaf is legal in its format, and is once in the rmap of the gfn
//          that it maps; these rmaps contain only such leafs.
//   INV-4  A gfn has as many write trackers as there are active pages above
//          level 1 with guest PTEs for it. While it has any, no leaf maps it
//          writable; nor while a page of level 1 shadows it, unless that page
//          is unsync.
//   INV-5  Unsync pages are marked up to the roots (INV-1 and INV-2 of
//          shadow/unsync_marks.h), and only a page of level 1 with guest PTEs
//          is unsync.
//   INV-6  mmu_unsync is the number of unsync pages. mmu_shadow_pages is at
//          least the number of active pages: invalid roots count, too.

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
  // By level; the sum with the other MMUs' leafs is pages_4k, 2m and 1g.
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
