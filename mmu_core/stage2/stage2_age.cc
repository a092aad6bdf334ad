#include "mmu_core/stage2/stage2_age.h"

#include <cstdint>

#include "absl/types/span.h"
#include "mmu_core/aging/age_entries.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/stage2/s2_descriptor.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

// The number of entries from the cursor's to the end of its table that are
// pages wholly inside `range`; 0 if the first is not.
template <TableGeometry G>
int WholePagesLeft(const S2Cursor<G>& c, GfnRange range) {
  if (ToInt(c.level()) != 1 || c.gfn() < range.start) return 0;
  const int entries = c.EntriesLeft();
  const Gfn end = c.gfn() + static_cast<uint64_t>(entries) * kGfnsPerGranule<G>;
  return end > range.end ? entries - 1 : entries;
}

// An atomic AND does no harm to whatever the entry has become since:
//   - with a write noted in S2AP[1] by the processor (ARM-36): the note stays;
//   - empty, locked, or a table: these have AF clear;
//   - another leaf: it looks old until the next access, as if it had been
//     mapped before it was aged.
// A compare-exchange would fail at a noted write, and leave AF set.
void ClearAccessFlag(S2Slot& slot, [[maybe_unused]] S2Descriptor seen) {
  AtHook(HookPoint::kEntryToAnd);
  slot.FetchAnd(~s2_bits::kAccessFlag);
}

// How a walk shares the tables with others.
// In an RCU read section that outlasts the walk.
struct Lockless {
  template <typename Cursor>
  bool MaybeYield(Cursor& /*cursor*/) const {
    return false;
  }
  void CountWork(int /*entries*/) const {}
};
// Under mmu_lock in write mode, which it releases now and then.
class Exclusive {
 public:
  Exclusive(MmuWriteLocked& lock, MmuCost* cost)
      : lock_(lock), cost_(cost), yield_(lock) {}
  template <typename Cursor>
  bool MaybeYield(Cursor& cursor) {
    return yield_.MaybeYield(cursor, nullptr, cost_);
  }
  void CountWork(int entries) const { lock_.CountWork(entries); }

 private:
  MmuWriteLocked& lock_;
  MmuCost* const cost_;
  YieldPoint<MmuWriteLocked> yield_;
};

template <TableGeometry G, typename Sharing>
void Age(const Stage2State<G>& state, Sharing sharing, GfnRange range,
         AgeMode mode, AgeResult& result, MmuCost* cost) {
  constexpr AgeBits kBits = {s2_bits::kValid, s2_bits::kAccessFlag};
  int64_t visited = 0;
  S2Cursor<G> c = state.CursorOver(range, Level{1});
  while (c.Valid()) {
    if (sharing.MaybeYield(c)) {
      c.Next();
      continue;
    }
    if (const int entries = WholePagesLeft(c, range); entries > 0) {
      AgeEntries<kGfnsPerGranule<G>>(&c.slot(), entries, c.gfn() - result.start,
                                     kBits, mode, result, &ClearAccessFlag);
      sharing.CountWork(entries);
      c.SkipSideways(entries - 1);
      visited += entries;
      c.NextAfterLeaf();
      continue;
    }
    ++visited;
    if (c.IsPresentLeaf()) {
      AgeLeaf(c, range, c.old_spte().IsAccessed(), mode, result,
              &ClearAccessFlag);
    } else {
      c.Next();
    }
  }
  if (cost != nullptr) cost->sptes_visited_count += visited;
}

}  // namespace

template <TableGeometry G>
void AgeStage2(const Stage2State<G>& state, MmuWriteLocked& lock,
               GfnRange range, AgeMode mode, AgeResult& result, MmuCost* cost) {
  Age(state, Exclusive(lock, cost), range, mode, result, cost);
}

template <TableGeometry G>
void AgeStage2Lockless(const Stage2State<G>& state, GfnRange range,
                       AgeMode mode, AgeResult& result, MmuCost* cost) {
  MMU_DCHECK(InRcuReadSection());
  MMU_DCHECK(state.options.SetsAccessFlag());
  Age(state, Lockless(), range, mode, result, cost);
}

template void AgeStage2(const Stage2State<Arm4K>&, MmuWriteLocked&, GfnRange,
                        AgeMode, AgeResult&, MmuCost*);
template void AgeStage2(const Stage2State<Arm16K>&, MmuWriteLocked&, GfnRange,
                        AgeMode, AgeResult&, MmuCost*);
template void AgeStage2(const Stage2State<Arm64K>&, MmuWriteLocked&, GfnRange,
                        AgeMode, AgeResult&, MmuCost*);
template void AgeStage2Lockless(const Stage2State<Arm4K>&, GfnRange, AgeMode,
                                AgeResult&, MmuCost*);
template void AgeStage2Lockless(const Stage2State<Arm16K>&, GfnRange, AgeMode,
                                AgeResult&, MmuCost*);
template void AgeStage2Lockless(const Stage2State<Arm64K>&, GfnRange, AgeMode,
                                AgeResult&, MmuCost*);

}  // namespace mmu
