#include "mmu_core/shadow/shadow_recover.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "mmu_core/base/check.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/rmap/slot_rmap_cursor.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/shadow_page_state.h"

namespace mmu {
namespace {

// The range from `start` to the end of its GiB, or of `range` if that comes
// first.
GfnRange BlockFrom(Gfn start, GfnRange range) {
  const Gfn end = RoundDown(start, Level::k1G) + PagesPer(Level::k1G);
  return {start, std::min(end, range.end)};
}

// The largest page that can replace the small ones at `page`, which is direct:
// the guest's page size, given by the entry in the nearest page above that is
// not direct; without guest tables, the level of the root.
Level LargestAbove(const MmuWriteLocked& lock, const ShadowPageState& page) {
  const ShadowPageState* at = &page;
  while (at->page->role.IsDirect()) {
    RmapIterator parent = at->parents.Entries(lock);
    if (!parent.Valid()) break;
    at = &PageHolding(parent.sptep());
  }
  return at->level();
}

// Counts the huge pages within one GiB.
class BlockCount {
 public:
  // Counts the huge page of `level` around `gfn`. For each level, gfns must
  // ascend.
  void Add(Gfn gfn, Level level) {
    Gfn& end = counted_to_[ToInt(level)];
    if (gfn < end) return;
    end = RoundDown(gfn, level) + PagesPer(level);
    ++(level == Level::k2M ? block_.to_2m_count : block_.to_1g_count);
  }
  void MoveTo(RecoverOutcome& outcome) const {
    outcome.to_1g_count += block_.to_1g_count;
    if (block_.to_1g_count == 0) outcome.to_2m_count += block_.to_2m_count;
  }

 private:
  std::array<Gfn, ToInt(kMaxLeafLevel) + 1> counted_to_;
  RecoverOutcome block_;
};

}  // namespace

RecoverOutcome ShadowRecover::Recover(MmuWriteLocked& lock, const Memslot& slot,
                                      GfnRange range, MmuCost* cost,
                                      const HoldLimit& limit) {
  MMU_CHECK(!slot.dirty_log_enabled());
  RecoverOutcome outcome;
  const SlotRmaps* const rmaps = slot.shadow_rmaps();
  if (rmaps == nullptr) return outcome;
  TlbFlushBatch batch(parts_.tlb, FlushScope::kRange, FlushReason::kRecover);
  YieldPoint<MmuWriteLocked> yield(lock, limit);
  for (GfnRange block = BlockFrom(range.start, range); !block.empty();
       block = BlockFrom(block.end, range)) {
    BlockCount count;
    for (SlotRmapCursor c(*rmaps, block, Level::k4K, ChildOf(kMaxLeafLevel));
         c.Valid(); c.Next()) {
      if (!c.head().empty()) {
        const Level allowed = slot.MaxMappingLevel(c.gfn(), max_page_level_);
        if (allowed > c.level()) {
          const Level becomes =
              ZapSmallOf(lock, c.head(), allowed, batch, cost);
          if (becomes > c.level()) count.Add(c.gfn(), becomes);
        }
      }
      yield.MaybeYield(c, &batch, cost);
    }
    count.MoveTo(outcome);
  }
  if (batch.pending()) batch.Flush(cost);
  parts_.counters.CountRecoveries(Level::k2M, outcome.to_2m_count);
  parts_.counters.CountRecoveries(Level::k1G, outcome.to_1g_count);
  return outcome;
}

Level ShadowRecover::ZapSmallOf(const MmuWriteLocked& lock,
                                const RmapHead& head, Level allowed,
                                TlbFlushBatch& batch, MmuCost* cost) {
  Level becomes = Level::k4K;
  for (RmapIterator it = head.Entries(lock); it.Valid();) {
    if (cost != nullptr) ++cost->sptes_visited_count;
    lock.CountWork(1);
    SpteSlot& sptep = it.sptep();
    const ShadowPageState& page = PageHolding(sptep);
    if (!page.page->role.IsDirect()) {
      it.Next();
      continue;
    }
    becomes = std::max(becomes, std::min(allowed, LargestAbove(lock, page)));
    batch.Add(ShadowLinks::RangeOf(sptep));
    links_.DropLeaf(lock, sptep);
    it = head.Entries(lock);  // the rmap changed
  }
  return becomes;
}

}  // namespace mmu
