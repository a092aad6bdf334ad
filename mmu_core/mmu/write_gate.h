// Whether a gfn may be mapped writable, as far as shadow pages are concerned.

#ifndef MMU_CORE_MMU_WRITE_GATE_H_
#define MMU_CORE_MMU_WRITE_GATE_H_

#include "mmu_core/base/address.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Thread-safe with the witnesses named.
class WriteGate {
 public:
  virtual ~WriteGate() = default;

  // To be asked before an SPTE for `gfn` of `slot` becomes writable, under the
  // hold of mmu_lock under which it does. False: the gfn is a guest's table
  // that stays write-protected. True: nothing shadows it, or what does is
  // unsync from now on (SHD-36). Of a huge page any of its gfns will do: no
  // table lies in it.
  virtual bool MayMapWritable(const MmuReadLocked& lock, const Memslot& slot,
                              Gfn gfn, Prefetched prefetched) = 0;
  virtual bool MayMapWritable(const MmuWriteLocked& lock, const Memslot& slot,
                              Gfn gfn, Prefetched prefetched) = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_MMU_WRITE_GATE_H_
