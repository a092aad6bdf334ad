#include "mmu_core/stage2/stage2_age.h"

#include <algorithm>
#include <cstdint>

#include "absl/types/span.h"
#include "mmu_core/aging/age_entries.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/stage2/s2_descriptor.h"
#include "mmu_core/stage2/s2_page.h"

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

// Under mmu_lock in write mode only the processor interferes: it may note a
// write in S2AP[1] meanwhile (ARM-36), which an atomic AND does not lose.
void ClearAccessFlag(S2Slot& slot, [[maybe_unused]] S2Descriptor seen) {
  AtHook(HookPoint::kEntryToAnd);
  slot.FetchAnd(~s2_bits::kAccessFlag);
}

}  // namespace

template <TableGeometry G>
void AgeStage2(const Stage2State<G>& state, MmuWriteLocked& lock,
               GfnRange range, AgeMode mode, AgeResult& result, MmuCost* cost) {
  const bool keep_mapped = !result.mapped.empty();
  constexpr AgeBits kBits = {s2_bits::kValid, s2_bits::kAccessFlag};
  int64_t visited = 0;
  YieldPoint<MmuWriteLocked> yield(lock);
  for (S2Cursor<G> c = state.CursorOver(range, Level{1}); c.Valid(); c.Next()) {
    if (yield.MaybeYield(c, nullptr, cost)) continue;
    if (const int entries = WholePagesLeft(c, range); entries > 0) {
      AgeEntries<kGfnsPerGranule<G>>(&c.slot(), entries, c.gfn() - range.start,
                                     kBits, mode, result, &ClearAccessFlag);
      lock.CountWork(entries);
      c.SkipSideways(entries - 1);
      visited += entries;
      continue;
    }
    ++visited;
    if (!c.IsPresentLeaf()) continue;
    // A granule or a block is one unit (AGE-17): its pages outside of the range
    // share the flag.
    const GfnRange pages = c.entry_range().Intersect(range);
    const BitRun bits = {pages.start - range.start, pages.end - range.start};
    if (keep_mapped) SetRun(absl::MakeSpan(result.mapped), bits);
    if (!c.old_spte().IsAccessed()) {
      result.old_page_count += pages.pages();
      continue;
    }
    result.young_page_count += pages.pages();
    SetRun(absl::MakeSpan(result.young), bits);
    if (c.entry_range().end > range.end) {
      result.young_until = std::max(result.young_until, c.entry_range().end);
    }
    if (mode == AgeMode::kTestAndClear) ClearAccessFlag(c.slot(), c.old_spte());
  }
  if (cost != nullptr) cost->sptes_visited_count += visited;
}

template void AgeStage2(const Stage2State<Arm4K>&, MmuWriteLocked&, GfnRange,
                        AgeMode, AgeResult&, MmuCost*);
template void AgeStage2(const Stage2State<Arm16K>&, MmuWriteLocked&, GfnRange,
                        AgeMode, AgeResult&, MmuCost*);
template void AgeStage2(const Stage2State<Arm64K>&, MmuWriteLocked&, GfnRange,
                        AgeMode, AgeResult&, MmuCost*);

}  // namespace mmu
