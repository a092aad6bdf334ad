#include "mmu_core/stage2/stage2_dirty.h"

#include <algorithm>

#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

template <TableGeometry G>
void CollectNotedWrites(const Stage2State<G>& state, const Memslot& slot,
                        MmuCost* cost) {
  // One RCU section for each GiB, so that none is long.
  constexpr uint64_t kPiece = (uint64_t{1} << 30) / kPageSize;
  int64_t visited = 0;
  for (Gfn at = slot.base_gfn; at < slot.range().end;) {
    const Gfn end =
        std::min(slot.range().end, Gfn((at.value() / kPiece + 1) * kPiece));
    RcuReadGuard rcu;
    for (S2Cursor<G> c = state.CursorOver({at, end}, Level{1}); c.Valid();
         c.Next()) {
      ++visited;
      MarkIfWriteNoted(&slot, c);
    }
    at = end;
  }
  if (cost != nullptr) cost->sptes_visited_count += visited;
}

template void CollectNotedWrites(const Stage2State<Arm4K>&, const Memslot&,
                                 MmuCost*);
template void CollectNotedWrites(const Stage2State<Arm16K>&, const Memslot&,
                                 MmuCost*);
template void CollectNotedWrites(const Stage2State<Arm64K>&, const Memslot&,
                                 MmuCost*);

}  // namespace mmu
