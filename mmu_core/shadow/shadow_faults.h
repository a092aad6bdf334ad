// Mapping a page in the shadow MMU on a fault: the second half, after the
// guest's tables were walked and the frame was resolved (SHD-50..53, PF-43).

#ifndef MMU_CORE_SHADOW_SHADOW_FAULTS_H_
#define MMU_CORE_SHADOW_SHADOW_FAULTS_H_

#include <cstdint>

#include "mmu_core/base/access.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/shadow/guest_context.h"
#include "mmu_core/shadow/shadow_leaf.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/shadow/shadow_sync.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tdp/nx_huge_pages.h"
#include "mmu_core/tdp/page_fault.h"

namespace mmu {

// One per VM. Thread-safe with the witnesses named.
class ShadowFaults {
 public:
  struct Options {
    Level max_page_level = kMaxLeafLevel;        // of the hardware (PF-31)
    const NxHugePages* nx_huge_pages = nullptr;  // null: no mitigation
  };
  ShadowFaults(const ShadowParts& parts, ShadowPages& pages, ShadowLeafs& leafs,
               ShadowSync& sync, const Options& options)
      : parts_(parts),
        pages_(pages),
        leafs_(leafs),
        sync_(sync),
        options_(options) {}
  ShadowFaults(const ShadowFaults&) = delete;
  ShadowFaults& operator=(const ShadowFaults&) = delete;

  // Both REQUIRE: `fault` is resolved as for TdpMmu::Map, and the invalidation
  // check passed under this `lock` (PF-25); MakeAvailable said yes; the caches
  // are topped up for a fault; `top` is ShadowRoots::TopPage of the address;
  // the caller's RCU section keeps fault.slot. kFixed, kSpurious, kRetry,
  // kWriteProtected (a guest's table stays read-only); kEmulate for a fault
  // without a slot, whose MMIO SPTE was installed.

  // Of a vCPU without guest tables: fault.gfn is what is accessed (PF-43).
  FaultResult MapDirect(const MmuWriteLocked& lock, GuestContext& guest,
                        ShadowPageState& top, PageFault& fault, MmuCost* cost);
  // Of one with guest tables: `walk`, translated, says how `address` becomes
  // fault.gfn, which is walk.gfn. `access` is what the guest grants, with what
  // ROLE-07 makes of it. kRetry if the guest's entries are not what they were.
  FaultResult MapGuest(const MmuWriteLocked& lock, GuestContext& guest,
                       ShadowPageState& top, PageFault& fault, uint64_t address,
                       const GuestWalkResult& walk, AccessRights access,
                       MmuCost* cost);

 private:
  const ShadowParts parts_;
  ShadowPages& pages_;
  ShadowLeafs& leafs_;
  ShadowSync& sync_;
  const Options options_;
};

// A supervisor's write with CR0.WP clear to a user page that is read-only: the
// entry becomes writable, for supervisors alone, and not executable for them
// under SMEP (ROLE-07). Else `access`.
AccessRights AccessOfSupervisorWrite(CpuRole role, AccessRights access);

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_FAULTS_H_
