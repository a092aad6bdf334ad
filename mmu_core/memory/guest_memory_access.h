// Accesses words of guest memory by guest-physical address, through the active
// memslots. KVM reaches a guest's page tables the same way, through its own
// mapping of the memory.

#ifndef MMU_CORE_MEMORY_GUEST_MEMORY_ACCESS_H_
#define MMU_CORE_MEMORY_GUEST_MEMORY_ACCESS_H_

#include <cstddef>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_hint.h"
#include "mmu_core/memory/memslot_table.h"

namespace mmu {

// Takes no lock: each call finds its memslot in an RCU read section of its own,
// which may be nested in the caller's. Allocates nothing, so it may be used
// under mmu_lock. Not subject to the second-stage tables: a page that they
// protect for a log or for a shadow page is still written, and marked dirty.
//
// Externally synchronised: belongs to the thread of one vCPU. The memory itself
// is shared with the guest; words are read and written atomically.
class GuestMemoryAccess final : public GuestWords {
 public:
  // `slots` must outlive this. `ring` is the vCPU's dirty ring, null if the VM
  // logs into bitmaps (memory/mark_dirty.h).
  GuestMemoryAccess(const MemslotTable& slots, int as_id, DirtyRing* ring)
      : slots_(slots), as_id_(as_id), ring_(ring) {}

  // Returns kDone, kNoSlot, kNoContents, kFrameMissing.
  GuestWordResult Read(Gpa gpa, WordSize size, uint64_t* value) override;
  // Returns kDone, kChanged, kReadonly, kHostReadonly, kRingFull, kNoSlot,
  // kNoContents, kFrameMissing. kRingFull: the slot logs and the ring is at its
  // soft limit; this stays so until the vCPU is back in its loop, however often
  // the call is repeated (DL-42).
  GuestWordResult CompareExchange(Gpa gpa, WordSize size, uint64_t expected,
                                  uint64_t desired) override;

 private:
  // Finds the slot with contents that contains `gpa`, and the host address of
  // its byte. Returns the reason if there is no such slot. REQUIRES: an RCU
  // read section; both results are valid until it ends.
  GuestWordResult Find(Gpa gpa, const Memslot** slot, Hva* hva);

  const MemslotTable& slots_;
  const int as_id_;
  DirtyRing* const ring_;
  MemslotHint hint_;
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_GUEST_MEMORY_ACCESS_H_
