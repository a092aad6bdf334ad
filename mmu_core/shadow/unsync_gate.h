// Whether a gfn may become writable although shadow pages may stand for a
// guest's table there: they go unsync, or it may not (SHD-36).

#ifndef MMU_CORE_SHADOW_UNSYNC_GATE_H_
#define MMU_CORE_SHADOW_UNSYNC_GATE_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/shadow/shadow_page_set.h"
#include "mmu_core/shadow/unsync_marks.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tdp/write_gate.h"

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
  // For a page that is being brought in step: no page becomes unsync for it
  // (SHD-35).
  bool MayMapWritableInSync(const MmuWriteLocked& lock, const Memslot& slot,
                            Gfn gfn);

 private:
  enum class Unsync : uint8_t { kAllowed, kRefused };
  template <typename Lock>
  bool MayMap(const Lock& lock, const Memslot& slot, Gfn gfn, Unsync unsync);

  const ShadowPageSet& pages_;
  UnsyncMarks& unsync_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_UNSYNC_GATE_H_
