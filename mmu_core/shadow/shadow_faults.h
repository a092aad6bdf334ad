// Mapping a page in the shadow MMU on a fault: the second half, after the
// guest's tables were walked and the frame was resolved (SHD-50..53, PF-43).

#ifndef MMU_CORE_SHADOW_SHADOW_FAULTS_H_
#define MMU_CORE_SHADOW_SHADOW_FAULTS_H_

#include <cstdint>
#include <optional>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/mmu/page_fault.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/shadow/guest_context.h"
#include "mmu_core/shadow/shadow_leaf.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/shadow/shadow_sync.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {

// One per VM. Thread-safe with the witnesses named.
class ShadowFaults {
 public:
  struct Options {
    Level max_page_level = kMaxLeafLevel;  // of the hardware (PF-31)
    NxHugePages* nx_huge_pages = nullptr;  // null: no mitigation
    // Null: host memory is never invalidated.
    const InvalidationGate* invalidations = nullptr;
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

  // The fast page fault, without mmu_lock (PF-11, PF-12): repairs the leaf in
  // place. kFixed, kSpurious; kInvalid: take MapDirect. REQUIRES: the vCPU has
  // no guest tables; `top` is its TopPage, and stays its root; fault.slot.
  FaultResult FastFault(const ShadowPageState& top, PageFault& fault);

  // Both REQUIRE: `fault` is resolved as for TdpMmu::Map, and the invalidation
  // check passed under this `lock` (PF-25); MakeAvailable said yes; the caches
  // are topped up for a fault; `top` is ShadowRoots::TopPage of the address;
  // the caller's RCU section keeps fault.slot. kFixed, kSpurious, kRetry,
  // kWriteProtected (a guest's table stays read-only); kEmulate for a fault
  // without a slot, whose MMIO SPTE was installed.

  // Of a vCPU without guest tables: fault.gfn is what is accessed (PF-43).
  FaultResult MapDirect(MmuWriteLocked& lock, GuestContext& guest,
                        ShadowPageState& top, PageFault& fault, MmuCost* cost);
  // Of one with guest tables: `walk`, translated, says how `address` becomes
  // fault.gfn, which is walk.gfn. `access` is what the guest grants, with what
  // ROLE-07 makes of it. kRetry if the guest's entries are not what they were.
  FaultResult MapGuest(MmuWriteLocked& lock, GuestContext& guest,
                       ShadowPageState& top, PageFault& fault, uint64_t address,
                       const GuestWalkResult& walk, AccessRights access,
                       MmuCost* cost);

 private:
  // From `page` on, in whose entry for `address` the guest's own mapping ends,
  // down to the leaf: direct pages and the leaf.
  FaultResult MapBelow(MmuWriteLocked& lock, GuestContext& guest,
                       ShadowPageState& page, PageFault& fault,
                       uint64_t address, AccessRights access, MmuCost* cost);
  FaultResult InstallLeaf(const MmuWriteLocked& lock, GuestContext& guest,
                          ShadowPageState& page, int index, PageFault& fault,
                          AccessRights access, MmuCost* cost);
  FaultResult InstallMmio(const MmuWriteLocked& lock, ShadowPageState& page,
                          int index, PageFault& fault, MmuCost* cost);
  // Empties the entry unless it is a leaf that maps `pfn` at `gfn`: that, or
  // an empty entry, is what it returns.
  Spte DropOther(const MmuWriteLocked& lock, ShadowPageState& page, int index,
                 Gfn gfn, Pfn pfn, TlbFlushBatch& flush);

  // The page that the entry leads to, if it stands for `gfn` under `role`; null
  // if there is none. One that does not is unlinked, and flushed (SHD-51).
  ShadowPageState* ExistingChild(const MmuWriteLocked& lock, SpteSlot& sptep,
                                 Gfn gfn, PageRole role, MmuCost* cost);
  void Link(const MmuWriteLocked& lock, GuestContext& guest, SpteSlot& sptep,
            ShadowPageState& child, MmuCost* cost);

  // SHD-53: the aligned block of eight around entry `index` of `page`, level 1.
  void Prefetch(const MmuWriteLocked& lock, GuestContext& guest,
                ShadowPageState& page, int index, MmuCost* cost);
  // What the guest's entry behind entry `index` translates to; none if it
  // cannot be used before the guest did.
  std::optional<GuestTranslation> TranslationAhead(GuestContext& guest,
                                                   const ShadowPageState& page,
                                                   int index);
  bool PrefetchEntry(const MmuWriteLocked& lock, GuestContext& guest,
                     ShadowPageState& page, int index,
                     GuestTranslation translation, MmuCost* cost);

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
