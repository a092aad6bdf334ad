// Whether a gfn may become writable although shadow pages may stand for a
// guest's table there: they go unsync, or it may not (SHD-36).
//
// RACE-33. A page becomes unsync on a fault, perhaps under mmu_lock in read
// mode, while others look, without a lock, for what they have to bring in step.
//
//   fault, vCPU 1                        vCPU 2
//   F1 mark the page's ancestors         G1 write the table through an SPTE
//   F2 set the page's unsync flag        G2 flush the TLB: load the root's
//   F3 store the writable SPTE              marks, sync if there are any
//   fault, vCPU 3
//   H1 load the flag: unsync already
//   H2 store a writable SPTE
//
// G1 needs what F3 or H2 stored, so G2 must see F1; it would else go on with
// translations from before G1. F1, F2 and F3 are in this order because F2 and
// F3 (SpteSlot) store with release; H1 loads with acquire, so that what F1
// stored comes before H2 as well. Of several faults that meet a page in step,
// one sets the flag, under UnsyncMarks::lock(); it is not taken back as long as
// one of them holds mmu_lock.

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

// One per VM. Thread-safe with the witnesses named.
class UnsyncGate : public WriteGate {
 public:
  UnsyncGate(const ShadowPageSet& pages, UnsyncMarks& unsync)
      : pages_(pages), unsync_(unsync) {}

  bool MayMapWritable(const MmuReadLocked& lock, const Memslot& slot, Gfn gfn,
                      Prefetched prefetched) override;
  bool MayMapWritable(const MmuWriteLocked& lock, const Memslot& slot, Gfn gfn,
                      Prefetched prefetched) override;
  // For an SPTE of a page that is being brought in step: no page becomes unsync
  // for it, and true only if no page stands for a table there (SHD-35).
  bool MayMapWritableInSync(const MmuWriteLocked& lock, const Memslot& slot,
                            Gfn gfn);

 private:
  // What pages of a gfn may be.
  enum class Tables : uint8_t { kNone, kUnsync, kMadeUnsync };
  template <typename Lock>
  bool MayMap(const Lock& lock, const Memslot& slot, Gfn gfn, Tables allowed);

  const ShadowPageSet& pages_;
  UnsyncMarks& unsync_;
};

// A seam for tests that must see what a lost mark leads to, as that of
// memory/mark_dirty.h. True: let the gfn be mapped writable, and leave the page
// as it is.
__attribute__((weak)) bool ShouldSkipUnsync();

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_UNSYNC_GATE_H_
