// Keeping the guest from writing, unnoticed, to tables that have a shadow
// (SHD-08..10).
//
// A page above level 1 write-tracks its gfn: the slot's count of trackers goes
// up, and nothing may map the gfn writable as long as it is not 0. A page of
// level 1 only write-protects its gfn, since it may become unsync later. Both
// keep huge pages from mapping the gfn. A page without guest PTEs does neither
// (SHD-07, ROLE-34).

#ifndef MMU_CORE_SHADOW_WRITE_TRACKING_H_
#define MMU_CORE_SHADOW_WRITE_TRACKING_H_

#include "mmu_core/base/address.h"
#include "mmu_core/shadow/indirect_page_count.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// One per VM. Thread-safe with the witnesses named.
class WriteTracking {
 public:
  WriteTracking(const ShadowParts& parts, ShadowLinks& links)
      : parts_(parts), links_(links) {}
  // REQUIRES: no page is accounted any more.
  ~WriteTracking();
  WriteTracking(const WriteTracking&) = delete;
  WriteTracking& operator=(const WriteTracking&) = delete;

  // To be called once `page`, if it has guest PTEs, can be found. Afterwards no
  // SPTE maps its gfn writable, and no TLB says otherwise. Whoever makes the
  // page reads the guest's entries after this, not before (RACE-32). REQUIRES:
  // the gfn lies in a slot (checked).
  void Account(const MmuWriteLocked& lock, const ShadowPageState& page,
               MmuCost* cost);
  // What `page` no longer keeps from being written or from huge pages, faults
  // find out.
  void Unaccount(const MmuWriteLocked& lock, const ShadowPageState& page);

  // Takes W, for good, from what maps `gfn` in address space `as_id`, in this
  // MMU and the VM's others. The caller flushes before it drops the lock. True
  // if something changed. For pages that are brought in step, too (SHD-34).
  bool WriteProtectGfn(const MmuWriteLocked& lock, int as_id, Gfn gfn);

  // Whether there may be a page with guest PTEs. May be called without a lock,
  // after a write to guest memory: if it says no, pages made from now on see
  // what was written (shadow/indirect_page_count.h).
  bool AnyIndirectPages() const { return indirect_pages_.Any(); }

 private:
  const ShadowParts parts_;
  ShadowLinks& links_;
  IndirectPageCount indirect_pages_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_WRITE_TRACKING_H_
