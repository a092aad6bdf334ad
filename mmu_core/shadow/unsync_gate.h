// Decides whether a gfn may become writable although shadow pages may shadow a
// guest's table there: either the pages become unsync, or the gfn stays
// read-only (SHD-36).
//
// RACE-33. A page becomes unsync on a fault, perhaps under mmu_lock in read
// mode, while other vCPUs look, without a lock, for pages to synchronise.
//
//   fault, vCPU 1                        vCPU 2
//   F1 mark the page's ancestors         G1 write the table through an SPTE
//   F2 set the page's unsync flag        G2 flush the TLB: load the root's
//   F3 store the writable SPTE              marks, sync if there are any
//   fault, vCPU 3
//   H1 load the flag: unsync already
//   H2 store a writable SPTE
//
// G1 needs the SPTE stored by F3 or H2, so G2 must see F1; otherwise vCPU 2
// would keep translations from before G1. F1, F2 and F3 are ordered because F2
// and F3 (SpteSlot) store with release. H1 loads with acquire, so F1 comes
// before H2 as well. If several faults meet a synchronised page, one sets the
// flag, under UnsyncMarks::lock(); the flag is not cleared as long as one of
// them holds mmu_lock.

#ifndef MMU_CORE_SHADOW_UNSYNC_GATE_H_
#define MMU_CORE_SHADOW_UNSYNC_GATE_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/write_gate.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/shadow/shadow_page_set.h"
#include "mmu_core/shadow/unsync_marks.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// One per VM. Thread-safe under the locks that the witnesses name.
class UnsyncGate : public WriteGate {
 public:
  UnsyncGate(const ShadowPageSet& pages, UnsyncMarks& unsync)
      : pages_(pages), unsync_(unsync) {}

  bool MayMapWritable(const MmuReadLocked& lock, const Memslot& slot, Gfn gfn,
                      Prefetched prefetched) override;
  bool MayMapWritable(const MmuWriteLocked& lock, const Memslot& slot, Gfn gfn,
                      Prefetched prefetched) override;
  // For an SPTE of a page that is being synchronised: makes no page unsync, and
  // returns true only if no page shadows a table at `gfn` (SHD-35).
  bool MayMapWritableInSync(const MmuWriteLocked& lock, const Memslot& slot,
                            Gfn gfn);

 private:
  // The state of the pages of a gfn.
  enum class Tables : uint8_t { kNone, kUnsync, kMadeUnsync };
  template <typename Lock>
  bool MayMap(const Lock& lock, const Memslot& slot, Gfn gfn, Tables allowed);

  const ShadowPageSet& pages_;
  UnsyncMarks& unsync_;
};

// A seam for tests of the effects of a lost mark, like that of
// memory/mark_dirty.h. If it returns true, the gfn is mapped writable, and the
// page does not become unsync.
__attribute__((weak)) bool ShouldSkipUnsync();

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_UNSYNC_GATE_H_
