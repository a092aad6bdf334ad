#include "mmu_core/stage2/stage2_recover.h"

#include <algorithm>
#include <cstdint>

#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/check.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {
namespace {

template <TableGeometry G>
class Recovery {
 public:
  Recovery(const Stage2State<G>& state, MmuWriteLocked& lock,
           const Memslot& slot, MmuCost* cost, const HoldLimit& limit)
      : state_(state),
        lock_(lock),
        slot_(slot),
        cost_(cost),
        batch_(state.parts.tlb, FlushScope::kRange, FlushReason::kRecover),
        yield_(lock, limit) {}

  // From small to large, one largest block after the other: taking away a table
  // of level 3 with all tables below it would be too much for one hold of the
  // lock.
  RecoverOutcome Run(GfnRange range) {
    RecoverOutcome outcome;
    const Level top = state_.options.max_leaf_level;
    Gfn at = range.start;
    while (at < range.end) {
      const Gfn end =
          std::min(range.end, RoundDown<G>(at, top) + PagesPer<G>(top));
      const GfnRange block{at, end};
      uint64_t removed = 0;
      for (Level level{2}; level <= top; level = ParentOf(level)) {
        removed += UnlinkTables(block, level);
      }
      // A part of the block, too, may have had the last of its tables.
      if (ToInt(top) == 3 && removed != 0 && MayMap(at, top) &&
          !HasTable(at, top)) {
        ++outcome.to_1g_count;
      } else {
        outcome.to_2m_count += removed;
      }
      at = end;
    }
    if (batch_.pending()) batch_.Flush(cost_);
    return outcome;
  }

 private:
  bool MayMap(Gfn gfn, Level level) const {
    return MaxMappingLevelS2<G>(slot_, gfn, state_.options.max_leaf_level) >=
           level;
  }

  bool HasTable(Gfn gfn, Level level) const {
    S2Cursor<G> c = state_.CursorOver(GfnRange::Of(gfn, 1), level);
    c.DescendToFirst();
    return c.level() == level && c.IsPresentTable();
  }

  uint64_t UnlinkTables(GfnRange range, Level level) {
    uint64_t removed = 0;
    for (S2Cursor<G> c = state_.CursorOver(range, level); c.Valid(); c.Next()) {
      if (yield_.MaybeYield(c, &batch_, cost_)) continue;
      if (cost_ != nullptr) ++cost_->sptes_visited_count;
      if (c.level() != level || !c.IsPresentTable() ||
          !range.Contains(c.entry_range()) || !MayMap(c.gfn(), level)) {
        continue;
      }
      removed += state_.updater.Empty(lock_, c, batch_);
    }
    return removed;
  }

  const Stage2State<G>& state_;
  MmuWriteLocked& lock_;
  const Memslot& slot_;
  MmuCost* const cost_;
  TlbFlushBatch batch_;
  YieldPoint<MmuWriteLocked> yield_;
};

}  // namespace

template <TableGeometry G>
RecoverOutcome MakeWayForBlocks(const Stage2State<G>& state,
                                MmuWriteLocked& lock, const Memslot& slot,
                                GfnRange range, MmuCost* cost,
                                const HoldLimit& limit) {
  MMU_CHECK(!slot.dirty_log_enabled());
  const RecoverOutcome outcome = Recovery<G>(state, lock, slot, cost, limit)
                                     .Run(range.Intersect(slot.range()));
  state.parts.counters.CountRecoveries(Level::k2M, outcome.to_2m_count);
  state.parts.counters.CountRecoveries(Level::k1G, outcome.to_1g_count);
  return outcome;
}

template RecoverOutcome MakeWayForBlocks(const Stage2State<Arm4K>&,
                                         MmuWriteLocked&, const Memslot&,
                                         GfnRange, MmuCost*, const HoldLimit&);
template RecoverOutcome MakeWayForBlocks(const Stage2State<Arm16K>&,
                                         MmuWriteLocked&, const Memslot&,
                                         GfnRange, MmuCost*, const HoldLimit&);
template RecoverOutcome MakeWayForBlocks(const Stage2State<Arm64K>&,
                                         MmuWriteLocked&, const Memslot&,
                                         GfnRange, MmuCost*, const HoldLimit&);

}  // namespace mmu
