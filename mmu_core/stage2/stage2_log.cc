#include "mmu_core/stage2/stage2_log.h"

#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/stage2/s2_descriptor.h"
#include "mmu_core/stage2/stage2_dirty.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

template <TableGeometry G>
S2Descriptor Protected(const Stage2State<G>& state, const S2Cursor<G>& c) {
  const S2Descriptor leaf = c.old_spte().Without(s2_bits::kWrite);
  const bool noted = state.options.hardware_dirty_state ==
                         Stage2Options::HardwareDirtyState::kYes &&
                     ToInt(c.level()) == 1;
  return noted ? leaf.With(s2_bits::kDirtyBitModifier) : leaf;
}

// Protects the leaf under the cursor. `before` is called before each attempt.
// Only the processor, which sets AF and S2AP[1], can make the exchange fail.
template <TableGeometry G, typename Fn>
bool ProtectLeaf(const Stage2State<G>& state, const MmuWriteLocked& lock,
                 S2Cursor<G>& c, Fn before) {
  while (c.IsPresentLeaf() && c.old_spte().IsWritable()) {
    before();
    if (state.updater.ChangeRights(lock, c, Protected(state, c))) return true;
  }
  return false;
}

}  // namespace

template <TableGeometry G>
void WriteProtectStage2(const Stage2State<G>& state, MmuWriteLocked& lock,
                        GfnRange range, MmuCost* cost, const HoldLimit& limit) {
  int64_t visited = 0;
  YieldPoint<MmuWriteLocked> yield(lock, limit);
  for (S2Cursor<G> c = state.CursorOver(range, Level{1}); c.Valid(); c.Next()) {
    // Yields without a flush: the caller flushes in any case before any code
    // relies on the protection (TLB-09).
    if (yield.MaybeYield(c, nullptr, cost)) continue;
    ++visited;
    // Writes from before the log are in no log.
    ProtectLeaf(state, lock, c, [] {});
  }
  if (cost != nullptr) cost->sptes_visited_count += visited;
}

template <TableGeometry G>
void ReprotectStage2(const Stage2State<G>& state, const MmuWriteLocked& lock,
                     const Memslot& slot, GfnRange range,
                     const PageMask& cleared, AlsoProtected& also,
                     MmuCost* cost) {
  RcuReadGuard rcu;
  int64_t visited = 0;
  for (S2Cursor<G> c = state.CursorOver(range, Level{1}); c.Valid(); c.Next()) {
    ++visited;
    if (ProtectLeaf(state, lock, c,
                    [&] { MarkIfWriteNoted(&slot, c, cleared); })) {
      also.Add(c.entry_range(), cleared);
    }
  }
  if (cost != nullptr) cost->sptes_visited_count += visited;
}

template void WriteProtectStage2(const Stage2State<Arm4K>&, MmuWriteLocked&,
                                 GfnRange, MmuCost*, const HoldLimit&);
template void WriteProtectStage2(const Stage2State<Arm16K>&, MmuWriteLocked&,
                                 GfnRange, MmuCost*, const HoldLimit&);
template void WriteProtectStage2(const Stage2State<Arm64K>&, MmuWriteLocked&,
                                 GfnRange, MmuCost*, const HoldLimit&);
template void ReprotectStage2(const Stage2State<Arm4K>&, const MmuWriteLocked&,
                              const Memslot&, GfnRange, const PageMask&,
                              AlsoProtected&, MmuCost*);
template void ReprotectStage2(const Stage2State<Arm16K>&, const MmuWriteLocked&,
                              const Memslot&, GfnRange, const PageMask&,
                              AlsoProtected&, MmuCost*);
template void ReprotectStage2(const Stage2State<Arm64K>&, const MmuWriteLocked&,
                              const Memslot&, GfnRange, const PageMask&,
                              AlsoProtected&, MmuCost*);

}  // namespace mmu
