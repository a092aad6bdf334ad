#include "mmu_core/stage2/stage2_unmap.h"

#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/check.h"
#include "mmu_core/stage2/stage2_dirty.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/tlb/tlb_flush_batch.h"
#include "mmu_core/tlb/tlbi.h"

namespace mmu {

template <TableGeometry G>
bool UnmapStage2(const Stage2State<G>& state, MmuWriteLocked& lock,
                 const Memslot* slot, GfnRange range, FlushReason reason,
                 MayYield may_yield, MmuCost* cost) {
  bool unmapped = false;
  TlbFlushBatch batch(state.parts.tlb, FlushScope::kRange, reason);
  const bool deferred = state.options.tlbi_range == TlbiUnit::Ranges::kYes;
  YieldPoint<MmuWriteLocked> yield(lock);
  for (S2Cursor<G> c = state.CursorOver(range, Level{1}); c.Valid(); c.Next()) {
    if (may_yield == MayYield::kYes && yield.MaybeYield(c, &batch, cost)) {
      continue;
    }
    if (cost != nullptr) ++cost->sptes_visited_count;
    // The processor may set AF and S2AP[1] meanwhile, and ageing clear AF.
    bool emptied = false;
    while (c.IsPresentLeaf() && !emptied) {
      MarkIfWriteNoted(slot, c);
      emptied = state.updater.Empty(lock, c, batch);
    }
    if (!emptied) continue;
    unmapped = true;
    if (!deferred) batch.Flush(cost);
  }
  // While the lock and the RCU section are still held (TLB-06, TLB-10).
  if (batch.pending()) batch.Flush(cost);
  return unmapped;
}

template <TableGeometry G>
Stage2State<G>::~Stage2State() {
  {
    MmuWriteLocked lock(parts.lock, LockOp::kZap);
    UnmapStage2(*this, lock, /*slot=*/nullptr, kAllGfns, FlushReason::kZap,
                MayYield::kYes, nullptr);
  }
  RcuBarrier();
  MMU_CHECK(parts.counters.Tables() == 0);
}

template Stage2State<Arm4K>::~Stage2State();
template Stage2State<Arm16K>::~Stage2State();
template Stage2State<Arm64K>::~Stage2State();
template bool UnmapStage2(const Stage2State<Arm4K>&, MmuWriteLocked&,
                          const Memslot*, GfnRange, FlushReason, MayYield,
                          MmuCost*);
template bool UnmapStage2(const Stage2State<Arm16K>&, MmuWriteLocked&,
                          const Memslot*, GfnRange, FlushReason, MayYield,
                          MmuCost*);
template bool UnmapStage2(const Stage2State<Arm64K>&, MmuWriteLocked&,
                          const Memslot*, GfnRange, FlushReason, MayYield,
                          MmuCost*);

}  // namespace mmu
