// What a leaf of the shadow MMU looks like: from what the guest grants, what
// the memslot and the host allow, and what shadow pages and the dirty log need,
// to an SPTE (SPTE-10..18).

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

// What the entry shall map. A value.
struct ShadowLeafRequest {
  Pfn pfn;  // aligned to the level of the page that holds the entry
  GuestTranslation translation;
  HostWritable map_writable = HostWritable::kNo;
  Prefetched prefetched = Prefetched::kNo;
  // Made while a page is brought in step: no other page may become unsync for
  // it (SHD-35), and it was accessed even though nobody waits for it (SPTE-11).
  bool synchronizing = false;
  // What stands there now, if it maps the same page: a writable leaf need not
  // ask again whether it may be (SPTE-14).
  Spte old_spte = {};
  DirtyRing* ring = nullptr;
};

struct ShadowLeaf {
  Spte spte;
  // It was to be writable, but a guest's table is there that must stay
  // protected: a write fault ends in kWriteProtected (SHD-44).
  bool write_protected = false;
  bool marked_dirty = false;  // clean -> dirty by this call (SPTE-16)
};

// One per VM. Thread-safe with the witnesses named.
class ShadowLeafs {
 public:
  // How the leafs of L2's pages notice writes: by W alone while CPUs log by
  // themselves, since they would log nested addresses (SPTE-04, DL-33).
  struct Options {
    DirtyTracking nested_dirty_tracking = DirtyTracking::kOfFormat;
    const NxHugePages* nx_huge_pages = nullptr;  // null: no mitigation
  };
  ShadowLeafs(const ShadowParts& parts, UnsyncGate& gate,
              const Options& options)
      : parts_(parts), gate_(gate), options_(options) {}
  ShadowLeafs(const ShadowLeafs&) = delete;
  ShadowLeafs& operator=(const ShadowLeafs&) = delete;

  // The SPTE for an entry of `page`. May make pages unsync; marks the gfn dirty
  // in the log if the SPTE is writable and `slot` logs. REQUIRES: `slot` holds
  // request.translation.gfn, in the caller's RCU section; a page above level 1
  // only where the slot does not log; the access grants more than W, and for a
  // huge page whose execution is mitigated more than that.
  ShadowLeaf Make(const MmuWriteLocked& lock, const ShadowPageState& page,
                  const Memslot& slot, const ShadowLeafRequest& request);

 private:
  const ShadowParts parts_;
  UnsyncGate& gate_;
  const Options options_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_LEAF_H_
