// Writes that the processor notes in descriptors (FEAT_HAFDBS: dirty state).
//
// Where a slot logs, a page that may be written has DBM. Its first write does
// not fault: the processor sets S2AP[1], and nothing else knows of the write.
// So the log has to look at the tables before it is sealed or counted, and no
// S2AP[1] may go without a mark. KVM does not use this feature; the protocol is
// that of the D bits of x86.
//
// A block never has DBM: one bit would stand for all of its pages. Neither has
// a page that a split made, until its first write faults.
//
// Two threads may want the note of one page (RACE-53):
//
//   the MMU, which takes S2AP[1] away     the log, which looks
//   holds mmu_lock in write mode          holds nothing
//   1. marks the page                     a. reads the descriptor
//   2. compare-exchange: without S2AP[1]  b. marks the page if S2AP[1] is set
//                                         c. seals
//
// If a comes before 2, b marks the page. If a comes after 2, it is ordered
// behind 1 by the exchange (release) and the read (acquire), and c finds that
// mark. With 2 before 1, a, c, 1 could follow 2: the sealed epoch, which may be
// the last one, would lack the page. If the processor sets S2AP[1] between 1
// and 2, the exchange fails, and the MMU begins again. A clear cannot come
// between 1 and 2 and take the mark: it needs mmu_lock to protect the page.

#ifndef MMU_CORE_STAGE2_STAGE2_DIRTY_H_
#define MMU_CORE_STAGE2_STAGE2_DIRTY_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/memory/mark_dirty.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/mmu.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/stats/mmu_cost.h"

namespace mmu {

// If the processor has noted a write to the page under the cursor, and `slot`
// logs: marks all gfns of its granule dirty, except those of `except`. To be
// called before S2AP[1] is taken away, under mmu_lock in write mode, again
// after each exchange that failed. `slot` is null if no slot has the page.
template <TableGeometry G>
void MarkIfWriteNoted(const Memslot* slot, const S2Cursor<G>& c,
                      const PageMask& except = {}) {
  if (slot == nullptr || !slot->dirty_log_enabled()) return;
  if (!c.IsPresentLeaf() || !c.old_spte().HasNotedWrite()) return;
  for (Gfn gfn = c.gfn(); gfn < c.entry_range().end; gfn += 1) {
    if (!except.Has(gfn)) MarkPageDirty(*slot, gfn, /*ring=*/nullptr);
  }
}

// Marks the pages of `slot` to which the processor has noted writes. The notes
// stay: a page is marked again until it is protected. No lock; not inside an
// RCU section. REQUIRES: `slot` logs.
template <TableGeometry G>
void CollectNotedWrites(const Stage2State<G>& state, const Memslot& slot,
                        MmuCost* cost);

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_STAGE2_DIRTY_H_
