#include "mmu_core/stage2/stage2_log.h"

#include <cstdint>

#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/stage2/s2_descriptor.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stage2/stage2_dirty.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

S2Descriptor Protected(S2Descriptor leaf, Level level, bool notes_writes) {
  const S2Descriptor readable = leaf.Without(s2_bits::kWrite);
  return notes_writes && ToInt(level) == 1
             ? readable.With(s2_bits::kDirtyBitModifier)
             : readable;
}

// Protects the leaf under the cursor. `before` is called before each attempt.
// Only the processor, which sets AF and S2AP[1], and ageing, which clears AF,
// can make the exchange fail.
template <TableGeometry G, typename Fn>
bool ProtectLeaf(const Stage2State<G>& state, const MmuWriteLocked& lock,
                 S2Cursor<G>& c, Fn before) {
  while (c.IsPresentLeaf() && c.old_spte().IsWritable()) {
    before();
    if (state.updater.ChangeRights(
            lock, c,
            Protected(c.old_spte(), c.level(), state.options.NotesWrites())))
      return true;
  }
  return false;
}

// Protects the `count` pages from `first` on, all of one table of level 1.
//
// Meanwhile only the processor sets AF in them, and ageing clears it; an atomic
// AND loses neither. One AND cannot set DBM as well; that takes an exchange,
// which fails if another change came first.
void ProtectPages(S2Slot* first, int count, bool notes_writes) {
  constexpr uint64_t kWritable = s2_bits::kValid | s2_bits::kWrite;
  for (S2Slot* slot = first; slot != first + count; ++slot) {
    S2Descriptor page = slot->Load();
    if (!page.Has(kWritable)) continue;
    AtHook(HookPoint::kEntryToAnd);
    if (!notes_writes) {
      slot->FetchAnd(~s2_bits::kWrite);
      continue;
    }
    while (!slot->CompareExchange(page, Protected(page, Level{1}, true))) {
    }
  }
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
    if (ToInt(c.level()) == 1) {
      const int entries = c.EntriesLeft();
      ProtectPages(&c.slot(), entries, state.options.NotesWrites());
      lock.CountWork(entries);
      c.SkipToLastEntry();
      visited += entries;
      continue;
    }
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
