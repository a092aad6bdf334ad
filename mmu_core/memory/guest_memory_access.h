// Words of guest memory by guest-physical address, through the active memslots:
// what KVM does with a guest's tables by way of its own mapping of the memory.

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
// which the caller's may enclose. Allocates nothing, so it may be used under
// mmu_lock. Not subject to the second-stage tables: what they protect, for a
// log or for a shadow page, is written all the same, and marked.
//
// Externally synchronised: belongs to the thread of one vCPU. The memory itself
// is shared with the guest; words are read and written atomically.
class GuestMemoryAccess final : public GuestWords {
 public:
  // `slots` must outlive this. `ring` is the vCPU's dirty ring, null if the VM
  // logs into bitmaps (memory/mark_dirty.h).
  GuestMemoryAccess(const MemslotTable& slots, int as_id, DirtyRing* ring)
      : slots_(slots), as_id_(as_id), ring_(ring) {}

  // kDone, kNoSlot, kNoContents, kFrameMissing.
  GuestWordResult Read(Gpa gpa, WordSize size, uint64_t* value) override;
  // kDone, kChanged, kReadonly, kHostReadonly, kRingFull, kNoSlot, kNoContents,
  // kFrameMissing.
  // kRingFull: of a slot that logs, once the ring is at its soft limit, however
  // often it is tried before the vCPU is back in its loop (DL-42).
  GuestWordResult CompareExchange(Gpa gpa, WordSize size, uint64_t expected,
                                  uint64_t desired) override;

 private:
  // The slot that `gpa` is in, which has contents, and where its byte is; or
  // why there is none. REQUIRES: an RCU read section, to whose end both are
  // valid.
  GuestWordResult Find(Gpa gpa, const Memslot** slot, Hva* hva);

  const MemslotTable& slots_;
  const int as_id_;
  DirtyRing* const ring_;
  MemslotHint hint_;
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_GUEST_MEMORY_ACCESS_H_
