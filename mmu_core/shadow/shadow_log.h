// Clearing write permission or the Dirty bit in the shadow MMU's leafs of a
// memslot, so that the next write to a page is detected (DL-02, DL-15,
// SPTE-35).
//
// All of it is lazy: MMU-writable stays, and TLBs may still allow writes until
// the caller flushes. A later operation that clears MMU-writable flushes even
// if W is already clear (TLB-08). Permanent write protection is
// ShadowLinks::WriteProtectGfn.

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

// No effect on a slot without rmaps. All functions release the lock in between,
// without a flush (TLB-09): those for a range if another thread waits or the
// hold has reached `limit`, those for a mask only in the latter case. REQUIRE:
// slots_lock, which keeps the slot; pages within the slot. True if anything
// changed: the caller flushes before any code relies on the protection. `cost`
// may be null. Thread-safe under the locks that the witnesses name.
class ShadowLog {
 public:
  explicit ShadowLog(const ShadowParts& parts) : parts_(parts) {}
  ShadowLog(const ShadowLog&) = delete;
  ShadowLog& operator=(const ShadowLog&) = delete;

  // Clears W in every leaf of at least `min_level` in `range`.
  bool WriteProtect(MmuWriteLocked& lock, const Memslot& slot, GfnRange range,
                    Level min_level, MmuCost* cost,
                    const HoldLimit& limit = {});
  // Clears D in every 4K leaf in `range`, or W in leafs whose writes are
  // detected that way (SPTE-04). Larger leafs are left to WriteProtect: the
  // processor would log only one of their pages.
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
  // Clears the bit in every leaf of one rmap.
  bool TakeFromRmap(const MmuWriteLocked& lock, const RmapHead& head, Take what,
                    MmuCost* cost);

  const ShadowParts parts_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_LOG_H_
