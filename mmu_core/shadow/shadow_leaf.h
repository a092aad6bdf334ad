// Making a leaf SPTE of the shadow MMU from the guest's rights, the limits of
// memslot and host, and the needs of shadow pages and of the dirty log
// (SPTE-10..18).

#ifndef MMU_CORE_SHADOW_SHADOW_LEAF_H_
#define MMU_CORE_SHADOW_SHADOW_LEAF_H_

#include "mmu_core/base/address.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/shadow/unsync_gate.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// The mapping that the entry is to make. A value.
struct ShadowLeafRequest {
  Pfn pfn;  // aligned to the level of the page that holds the entry
  GuestTranslation translation;
  HostWritable map_writable = HostWritable::kNo;
  Prefetched prefetched = Prefetched::kNo;
  // The leaf is made while a page is synchronised: no other page may become
  // unsync for it (SHD-35), and it counts as accessed although no vCPU waits
  // for it (SPTE-11).
  bool synchronizing = false;
  // The current SPTE, if it maps the same page: a writable leaf need not be
  // checked again for write access (SPTE-14).
  Spte old_spte = {};
  DirtyRing* ring = nullptr;
};

struct ShadowLeaf {
  Spte spte;
  // The leaf was to be writable, but the gfn holds a guest's table that must
  // stay write-protected: a write fault returns kWriteProtected (SHD-44).
  bool write_protected = false;
  bool marked_dirty = false;  // clean -> dirty by this call (SPTE-16)
};

// One per VM. Thread-safe under the locks that the witnesses name.
class ShadowLeafs {
 public:
  // How writes to the leafs of L2's pages are detected: only by clearing W
  // while CPUs log dirty pages themselves, since they would log nested
  // addresses (SPTE-04, DL-33).
  struct Options {
    DirtyTracking nested_dirty_tracking = DirtyTracking::kOfFormat;
    const NxHugePages* nx_huge_pages = nullptr;  // null: no mitigation
  };
  ShadowLeafs(const ShadowParts& parts, UnsyncGate& gate,
              const Options& options)
      : parts_(parts), gate_(gate), options_(options) {}
  ShadowLeafs(const ShadowLeafs&) = delete;
  ShadowLeafs& operator=(const ShadowLeafs&) = delete;

  // Makes the SPTE for an entry of `page`. May make pages unsync; marks the gfn
  // dirty in the log if the SPTE is writable and `slot` logs. REQUIRES: `slot`
  // holds request.translation.gfn, in the caller's RCU section; a page above
  // level 1 only if the slot does not log; the access grants more than W, and
  // for a huge page whose execution is mitigated more than W and X.
  ShadowLeaf Make(const MmuWriteLocked& lock, const ShadowPageState& page,
                  const Memslot& slot, const ShadowLeafRequest& request);

 private:
  const ShadowParts parts_;
  UnsyncGate& gate_;
  const Options options_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_LEAF_H_
