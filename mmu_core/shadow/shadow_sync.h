// Synchronising unsync pages with the guest's tables (SHD-32..37).
//
// RACE-34. The guest writes its table while a page that shadows it leaves the
// unsync state.
//
//   1. vCPU: may write the table, through its TLB or an SPTE that is writable
//      or that a fast fault may make writable.
//   2. Sync, under mmu_lock in write mode: clears W and MMU-writable in all
//      SPTEs that map the table; flushes.
//   3. vCPU: writes and faults. A fast fault finds nothing that it may repair,
//      or its compare-exchange fails; the slow fault waits for mmu_lock.
//   4. Sync: clears the page's unsync flag, reads the table.
//   5. vCPU: its fault makes the page unsync again, then the SPTE writable.
//
// 4 reads a write from before the end of the flush; a later write can only come
// after 5. If 2 came after the read, a write in between would change a table
// whose page is no longer marked unsync. A batch of pages shares the flush, and
// no page becomes unsync again for an SPTE of a page that is read after it
// (SHD-35).

#ifndef MMU_CORE_SHADOW_SHADOW_SYNC_H_
#define MMU_CORE_SHADOW_SHADOW_SYNC_H_

#include <cstdint>

#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/shadow/guest_context.h"
#include "mmu_core/shadow/shadow_leaf.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/shadow/unsync_marks.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// One per VM. Thread-safe under the locks that the witnesses name.
class ShadowSync {
 public:
  ShadowSync(const ShadowParts& parts, ShadowPages& pages, ShadowLeafs& leafs)
      : parts_(parts), pages_(pages), leafs_(leafs) {}
  ShadowSync(const ShadowSync&) = delete;
  ShadowSync& operator=(const ShadowSync&) = delete;

  // Reads the guest's entry for each SPTE of `page`, and drops, changes or
  // keeps the SPTE (SHD-33). An unsync page stays unsync. The caller flushes on
  // kNeedsFlush, and zaps the page on kFailed: the guest's table cannot be
  // read, or `guest` interprets tables in another way. REQUIRES: level 1, with
  // guest PTEs (checked).
  PageSync SyncPage(const MmuWriteLocked& lock, GuestContext& guest,
                    ShadowPageState& page, MmuCost* cost);
  // The same for entry `index` only, for INVLPG (SHD-45): the caller zaps the
  // entry on kFailed.
  PageSync SyncEntry(const MmuWriteLocked& lock, GuestContext& guest,
                     ShadowPageState& page, int index, MmuCost* cost);

  enum class MayYield : uint8_t { kNo, kYes };
  // Synchronises all unsync pages below `top`, flushing as needed (SHD-34).
  // kYes: releases the lock between batches, and afterwards `top` may be
  // invalid. False, only with kNo: other threads wait and pages are left; call
  // again.
  [[nodiscard]] bool SyncChildren(MmuWriteLocked& lock, GuestContext& guest,
                                  ShadowPageState& top, MayYield may_yield,
                                  MmuCost* cost);

 private:
  // REQUIRES: the guest can read the table; the SPTE is not the initial value.
  PageSync SyncOne(const MmuWriteLocked& lock, GuestContext& guest,
                   ShadowPageState& page, int index, MmuCost* cost);
  PageSync Drop(const MmuWriteLocked& lock, SpteSlot& sptep);
  void SyncBatch(const MmuWriteLocked& lock, GuestContext& guest,
                 const UnsyncBatch& batch, MmuCost* cost);

  const ShadowParts parts_;
  ShadowPages& pages_;
  ShadowLeafs& leafs_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_SYNC_H_
