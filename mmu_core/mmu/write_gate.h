// Decides whether shadow pages allow a gfn to be mapped writable.

#ifndef MMU_CORE_MMU_WRITE_GATE_H_
#define MMU_CORE_MMU_WRITE_GATE_H_

#include "mmu_core/base/address.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Thread-safe under the locks that the witnesses name.
class WriteGate {
 public:
  virtual ~WriteGate() = default;

  // To be called before an SPTE for `gfn` of `slot` becomes writable, under the
  // same hold of mmu_lock. False: the gfn is a guest's table that stays
  // write-protected. True: no page shadows it, or the pages that do are unsync
  // from now on (SHD-36). For a huge page any of its gfns may be passed: no
  // table lies in it.
  virtual bool MayMapWritable(const MmuReadLocked& lock, const Memslot& slot,
                              Gfn gfn, Prefetched prefetched) = 0;
  virtual bool MayMapWritable(const MmuWriteLocked& lock, const Memslot& slot,
                              Gfn gfn, Prefetched prefetched) = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_MMU_WRITE_GATE_H_
