// Taking write permission or the Dirty bit from what the shadow MMU maps of a
// memslot, so that the next write to a page is noticed (DL-02, DL-15, SPTE-35).
//
// All of it is lazy: MMU-writable stays, TLBs may still allow writes until the
// caller flushes, and whoever takes MMU-writable later flushes whatever W says
// (TLB-08). Write protection for good is ShadowLinks::WriteProtectGfn.

#ifndef MMU_CORE_SHADOW_SHADOW_LOG_H_
#define MMU_CORE_SHADOW_SHADOW_LOG_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// No effect on a slot without rmaps. All let others have the lock in between,
// without a flush (TLB-09): those for a range where somebody waits or the hold
// has reached `limit`, those for a mask only in the latter case. REQUIRE
// slots_lock, which keeps the slot, and pages within it. True if anything
// changed: the caller flushes before anybody may rely on it. `cost` may be
// null. Thread-safe with the witnesses named.
class ShadowLog {
 public:
  explicit ShadowLog(const ShadowParts& parts) : parts_(parts) {}
  ShadowLog(const ShadowLog&) = delete;
  ShadowLog& operator=(const ShadowLog&) = delete;

  // Takes W from every leaf of at least `min_level` in `range`.
  bool WriteProtect(MmuWriteLocked& lock, const Memslot& slot, GfnRange range,
                    Level min_level, MmuCost* cost,
                    const HoldLimit& limit = {});
  // Takes D from every 4K leaf in `range`, or W where writes are noticed by
  // that (SPTE-04). Larger leafs are left to WriteProtect: the processor would
  // log one of their pages.
  bool ClearDirty(MmuWriteLocked& lock, const Memslot& slot, GfnRange range,
                  MmuCost* cost, const HoldLimit& limit = {});

  // The same for the 4K leafs of the pages `first + i` whose bit i is set in
  // `mask`, all in the slot.
  bool WriteProtectMasked(MmuWriteLocked& lock, const Memslot& slot, Gfn first,
                          uint64_t mask, MmuCost* cost);
  bool ClearDirtyMasked(MmuWriteLocked& lock, const Memslot& slot, Gfn first,
                        uint64_t mask, MmuCost* cost);

 private:
  enum class Take : uint8_t { kWrite, kDirty };

  bool TakeFromSlot(MmuWriteLocked& lock, const Memslot& slot, GfnRange range,
                    Level first, Level last, Take what, MmuCost* cost,
                    const HoldLimit& limit);
  bool TakeMasked(MmuWriteLocked& lock, const Memslot& slot, Gfn first,
                  uint64_t mask, Take what, MmuCost* cost);
  // From every leaf of one rmap.
  bool TakeFromRmap(const MmuWriteLocked& lock, const RmapHead& head, Take what,
                    MmuCost* cost);

  const ShadowParts parts_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_LOG_H_
