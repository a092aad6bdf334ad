#include "mmu_core/stage2/stage2_split.h"

#include <algorithm>
#include <cstdint>

#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/stage2/s2_descriptor.h"
#include "mmu_core/stage2/s2_split_table.h"
#include "mmu_core/sync/hold_clock.h"

namespace mmu {
namespace {

template <TableGeometry G>
class Splitter {
 public:
  Splitter(const Stage2State<G>& state, MmuWriteLocked& lock,
           const Stage2SplitPlan& plan, S2Cache<G>& cache, MmuCost* cost)
      : state_(state),
        lock_(lock),
        plan_(plan),
        tables_(static_cast<int>(TablesForSplit<G>(plan.chunk_bytes))),
        cache_(cache),
        cost_(cost) {}

  SplitOutcome Run(GfnRange range) {
    SplitOutcome outcome;
    outcome.next_gfn = range.end;
    int64_t visited = 0;
    YieldPoint<MmuWriteLocked> yield(lock_, plan_.limit);
    S2Cursor<G> c = state_.CursorOver(range, ParentOf(plan_.target));
    for (; c.Valid(); c.Next()) {
      if (plan_.deadline_nanos != 0 && c.MayYield() &&
          HoldNanos() >= plan_.deadline_nanos) {
        outcome.next_gfn = std::max(range.start, c.next_last_level_gfn());
        break;
      }
      if (yield.MaybeYield(c, nullptr, cost_)) continue;
      ++visited;
      if (!c.IsPresentLeaf() || c.level() <= plan_.target) continue;
      if (NeedsTables(c)) {
        bool filled = false;
        bool at_limit = false;
        yield.WithoutLock(c, [&] {
          filled = cache_.TryTopUp(tables_, tables_);
          if (filled) return;
          at_limit = cache_.pool_is_at_limit();
          // A part of a chunk's tables is of no use here, but to others.
          cache_.Clear();
        });
        if (filled) continue;  // the entry may have changed meanwhile
        Fail(at_limit, outcome);
        outcome.next_gfn = std::max(range.start, c.next_last_level_gfn());
        break;
      }
      // Only the processor, which sets AF, and ageing can make it fail.
      while (!SplitOne(c, outcome)) {
      }
    }
    if (cost_ != nullptr) cost_->sptes_visited_count += visited;
    return outcome;
  }

 private:
  // Whether the cache must be filled before the block under the cursor is
  // split. At the first block of a chunk it must have the tables for the whole
  // chunk (ARM-23).
  bool NeedsTables(const S2Cursor<G>& c) {
    const uint64_t chunk =
        (c.next_last_level_gfn().value() << kPageShift) / plan_.chunk_bytes;
    if (chunk == chunk_) return cache_.count() == 0;
    if (cache_.count() < tables_) return true;
    chunk_ = chunk;
    return false;
  }

  void Fail(bool at_limit, SplitOutcome& outcome) {
    state_.parts.counters.CountSplitFailure(at_limit ? SplitFailure::kLimit
                                                     : SplitFailure::kNoMemory);
    (at_limit ? outcome.limit_count : outcome.no_memory_count) = 1;
  }

  // Makes one attempt. False: the block has changed, and is still a block.
  bool SplitOne(S2Cursor<G>& c, SplitOutcome& outcome) {
    const Level level = c.level();
    // All the way down with one TLBI if there are tables for it; otherwise one
    // level, and the walk goes on with the smaller blocks.
    const Level leaf_level = static_cast<uint64_t>(cache_.count()) >=
                                     TablesForSplit<G>(BytesPer<G>(level))
                                 ? plan_.target
                                 : ChildOf(level);
    S2SplitTable<G> table(state_, c, cache_, leaf_level, S2Neighbours::kKeep);
    if (!table.Link(lock_, c, cost_)) {
      state_.parts.counters.CountSplitFailure(SplitFailure::kRaced);
      return false;
    }
    // One that goes down two levels is that of the blocks of 2 MiB, too.
    Count(outcome, level, 1);
    if (ToInt(level) - ToInt(leaf_level) > 1) {
      Count(outcome, ChildOf(level), G::kEntriesPerTable);
    }
    return true;
  }

  void Count(SplitOutcome& outcome, Level level, int splits) {
    for (int i = 0; i < splits; ++i) {
      state_.parts.counters.CountSplit(level, plan_.trigger);
    }
    (ToInt(level) == 3 ? outcome.split_1g_count : outcome.split_2m_count) +=
        splits;
  }

  const Stage2State<G>& state_;
  MmuWriteLocked& lock_;
  const Stage2SplitPlan& plan_;
  const int tables_;               // that a chunk needs
  uint64_t chunk_ = ~uint64_t{0};  // whose tables are there
  S2Cache<G>& cache_;
  MmuCost* const cost_;
};

}  // namespace

template <TableGeometry G>
SplitOutcome SplitStage2(const Stage2State<G>& state, MmuWriteLocked& lock,
                         GfnRange range, const Stage2SplitPlan& plan,
                         S2Cache<G>& cache, MmuCost* cost) {
  return Splitter<G>(state, lock, plan, cache, cost).Run(range);
}

template SplitOutcome SplitStage2(const Stage2State<Arm4K>&, MmuWriteLocked&,
                                  GfnRange, const Stage2SplitPlan&,
                                  S2Cache<Arm4K>&, MmuCost*);
template SplitOutcome SplitStage2(const Stage2State<Arm16K>&, MmuWriteLocked&,
                                  GfnRange, const Stage2SplitPlan&,
                                  S2Cache<Arm16K>&, MmuCost*);
template SplitOutcome SplitStage2(const Stage2State<Arm64K>&, MmuWriteLocked&,
                                  GfnRange, const Stage2SplitPlan&,
                                  S2Cache<Arm64K>&, MmuCost*);

}  // namespace mmu
