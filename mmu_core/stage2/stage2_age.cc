#include "mmu_core/stage2/stage2_age.h"

#include <algorithm>
#include <cstdint>

#include "absl/types/span.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/stage2/s2_descriptor.h"

namespace mmu {

template <TableGeometry G>
void AgeStage2(const Stage2State<G>& state, MmuWriteLocked& lock,
               GfnRange range, AgeMode mode, AgeResult& result, MmuCost* cost) {
  const bool keep_mapped = !result.mapped.empty();
  int64_t visited = 0;
  YieldPoint<MmuWriteLocked> yield(lock);
  for (S2Cursor<G> c = state.CursorOver(range, Level{1}); c.Valid(); c.Next()) {
    if (yield.MaybeYield(c, nullptr, cost)) continue;
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
    // Only the processor interferes: it may note a write in S2AP[1] meanwhile
    // (ARM-36).
    while (mode == AgeMode::kTestAndClear &&
           !state.updater.ChangeRights(
               lock, c, c.old_spte().Without(s2_bits::kAccessFlag))) {
    }
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
