// Splitting blocks ahead of the guest's writes, by chunk (ARM-20..30).

#ifndef MMU_CORE_STAGE2_STAGE2_SPLIT_H_
#define MMU_CORE_STAGE2_STAGE2_SPLIT_H_

#include <algorithm>
#include <cstdint>

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/mmu/huge_page_outcomes.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// The tables that a split of `bytes` from a boundary on may take (ARM-22): one
// for each block of level 2, and one for each of level 3 where such blocks
// exist.
template <TableGeometry G>
constexpr uint64_t TablesForSplit(uint64_t bytes) {
  uint64_t tables = 0;
  for (Level level{2}; level <= G::kMaxLeafLevel; level = ParentOf(level)) {
    tables += (bytes + BytesPer<G>(level) - 1) / BytesPer<G>(level);
  }
  return tables;
}

// The parameters of a split. A value.
struct Stage2SplitPlan {
  Level target{1};
  SplitTrigger trigger = SplitTrigger::kRequest;
  // The size of a piece: the size of a leaf of some level (ARM-21). The lock is
  // dropped at the start of a piece for which there are too few tables.
  uint64_t chunk_bytes = 0;
  int64_t deadline_nanos = 0;  // as TdpMmu::Split
  HoldLimit limit;
};

// Splits the leafs above `target` that overlap `range`, piece by piece. Each
// block becomes a table that maps the same pages with the same rights, and AF.
// A block of level 3 becomes pages at once if there are tables for all of them:
// one TLBI. Otherwise it becomes blocks of level 2, which are then split one by
// one (ARM-24). Best effort: if there is no memory for tables it stops, and
// what is not split stays write-protected (ARM-29).
template <TableGeometry G>
SplitOutcome SplitStage2(const Stage2State<G>& state, MmuWriteLocked& lock,
                         GfnRange range, const Stage2SplitPlan& plan,
                         S2Cache<G>& cache, MmuCost* cost);

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_STAGE2_SPLIT_H_
