// Preventing unnoticed writes of the guest to tables that are shadowed
// (SHD-08..10).
//
// A page above level 1 write-tracks its gfn: the slot's count of trackers
// increases, and no SPTE may map the gfn writable while it is not 0. A page of
// level 1 only write-protects its gfn, since it may become unsync later. Both
// prevent huge mappings of the gfn. A page without guest PTEs does neither
// (SHD-07, ROLE-34).

#ifndef MMU_CORE_SHADOW_WRITE_TRACKING_H_
#define MMU_CORE_SHADOW_WRITE_TRACKING_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/shadow/indirect_page_count.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// One per VM. Thread-safe under the locks that the witnesses name.
class WriteTracking {
 public:
  WriteTracking(const ShadowParts& parts, ShadowLinks& links)
      : parts_(parts), links_(links) {}
  // REQUIRES: no page is accounted.
  ~WriteTracking();
  WriteTracking(const WriteTracking&) = delete;
  WriteTracking& operator=(const WriteTracking&) = delete;

  // To be called for `page` once lookups find it; has an effect only if it has
  // guest PTEs. Afterwards no SPTE maps its gfn writable, and no TLB entry
  // does. The thread that makes the page reads the guest's entries after this,
  // not before (RACE-32). REQUIRES: the gfn lies in a slot (checked).
  void Account(const MmuWriteLocked& lock, const ShadowPageState& page,
               MmuCost* cost);
  // Ends the protection by `page`. Later faults restore write permission and
  // huge mappings.
  void Unaccount(const MmuWriteLocked& lock, const ShadowPageState& page);

  // Clears W and MMU-writable in the SPTEs that map `gfn` in address space
  // `as_id`, in this MMU and the VM's others. The caller flushes before it
  // drops the lock. True if something changed. Also for pages that are being
  // synchronised (SHD-34).
  bool WriteProtectGfn(const MmuWriteLocked& lock, int as_id, Gfn gfn);

  // Whether there may be a page with guest PTEs. May be called without a lock,
  // after a write to guest memory: if false, pages made from now on see the
  // write (shadow/indirect_page_count.h).
  bool AnyIndirectPages() const { return indirect_pages_.Any(); }
  // The number of pages with guest PTEs (KVM's indirect_shadow_pages). Exact
  // under mmu_lock in any mode.
  uint64_t indirect_pages() const { return indirect_pages_.Count(); }
  // Lets a test break that number.
  IndirectPageCount& IndirectPagesForTest() { return indirect_pages_; }

 private:
  const ShadowParts parts_;
  ShadowLinks& links_;
  IndirectPageCount indirect_pages_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_WRITE_TRACKING_H_
