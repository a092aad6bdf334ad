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

// One per VM. Thread-safe under the locks that the witnesses name.
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
  // place. Returns kFixed, kSpurious, or kInvalid: use MapDirect. REQUIRES: the
  // vCPU has no guest tables; `top` is its TopPage, and stays its root;
  // fault.slot.
  FaultResult FastFault(const ShadowPageState& top, PageFault& fault);

  // The next two functions REQUIRE: `fault` is resolved as for TdpMmu::Map, and
  // the invalidation check passed under this `lock` (PF-25); MakeAvailable
  // returned true; the caches are topped up for a fault; `top` is
  // ShadowRoots::TopPage of the address; the caller's RCU section keeps
  // fault.slot. They return kFixed, kSpurious, kRetry, kWriteProtected (a
  // guest's table stays read-only), or kEmulate for a fault without a slot, for
  // which an MMIO SPTE was installed.

  // For a vCPU without guest tables: fault.gfn is the accessed page (PF-43).
  FaultResult MapDirect(MmuWriteLocked& lock, GuestContext& guest,
                        ShadowPageState& top, PageFault& fault, MmuCost* cost);
  // For a vCPU with guest tables: `walk`, a successful walk, translates
  // `address` to fault.gfn, which is walk.gfn. `access` is the guest's rights,
  // modified by ROLE-07. kRetry if the guest's entries have changed since the
  // walk.
  FaultResult MapGuest(MmuWriteLocked& lock, GuestContext& guest,
                       ShadowPageState& top, PageFault& fault, uint64_t address,
                       const GuestWalkResult& walk, AccessRights access,
                       MmuCost* cost);

 private:
  // Maps from `page`, whose entry for `address` is the end of the guest's own
  // mapping, down to the leaf: the direct pages and the leaf.
  FaultResult MapBelow(MmuWriteLocked& lock, GuestContext& guest,
                       ShadowPageState& page, PageFault& fault,
                       uint64_t address, AccessRights access, MmuCost* cost);
  FaultResult InstallLeaf(const MmuWriteLocked& lock, GuestContext& guest,
                          ShadowPageState& page, int index, PageFault& fault,
                          AccessRights access, MmuCost* cost);
  FaultResult InstallMmio(const MmuWriteLocked& lock, ShadowPageState& page,
                          int index, PageFault& fault, MmuCost* cost);
  // Empties the entry unless it is a leaf that maps `pfn` at `gfn`. Returns
  // that leaf or an empty entry.
  Spte DropOther(const MmuWriteLocked& lock, ShadowPageState& page, int index,
                 Gfn gfn, Pfn pfn, TlbFlushBatch& flush);

  // The child of the entry if it is for `gfn` under `role`; null if there is
  // none. Any other child is unlinked, and flushed (SHD-51).
  ShadowPageState* ExistingChild(const MmuWriteLocked& lock, SpteSlot& sptep,
                                 Gfn gfn, PageRole role, MmuCost* cost);
  // Unlinks the child of the entry. Adds what a vCPU may have cached through
  // the entry to `flush`.
  void Unlink(const MmuWriteLocked& lock, SpteSlot& sptep,
              TlbFlushBatch& flush);
  void Link(const MmuWriteLocked& lock, GuestContext& guest, SpteSlot& sptep,
            ShadowPageState& child, MmuCost* cost);

  // SHD-53: fills the aligned block of eight around entry `index` of `page`,
  // level 1.
  void Prefetch(const MmuWriteLocked& lock, GuestContext& guest,
                ShadowPageState& page, int index, MmuCost* cost);
  // The translation by the guest's entry for entry `index`; nullopt if it must
  // not be used before the guest's own access.
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

// For a supervisor's write with CR0.WP clear to a read-only user page: the
// rights become writable for supervisors only, and not executable for them
// under SMEP (ROLE-07). Otherwise `access`.
AccessRights AccessOfSupervisorWrite(CpuRole role, AccessRights access);

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_FAULTS_H_
