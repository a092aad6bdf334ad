#include "mmu_core/stage2/stage2_fault.h"

#include <cstdint>

#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/memory/mark_dirty.h"
#include "mmu_core/stage2/s2_descriptor.h"
#include "mmu_core/stage2/s2_format.h"
#include "mmu_core/stage2/s2_split_table.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

// One fault on its way down the tables.
template <TableGeometry G>
class Mapper {
 public:
  Mapper(Stage2State<G>& state, const MmuReadLocked& lock, PageFault& fault,
         S2Cache<G>& cache)
      : state_(state), lock_(lock), fault_(fault), cache_(cache) {
    ChooseLevel();
  }

  FaultResult Run() {
    RcuReadGuard rcu;
    S2Cursor<G> c =
        state_.CursorOver(GfnRange::Of(fault_.gfn, 1), fault_.goal_level);
    if (c.Valid()) c.DescendToFirst();
    for (; c.Valid(); c.Next()) {
      // Another walker changes this entry, or tears this part of the tree down
      // (ARM-05).
      if (c.old_spte().IsFrozen()) return FaultResult::kRetry;
      if (c.level() == fault_.goal_level) return MapAtGoal(c);
      if (c.IsPresentTable()) continue;
      const bool done = c.IsPresentLeaf() ? SplitBlock(c) : LinkEmptyTable(c);
      if (!done) return FaultResult::kRetry;
    }
    return FaultResult::kRetry;  // the path changed under the walk
  }

 private:
  bool logs() const { return fault_.slot->dirty_log_enabled(); }
  bool is_write() const { return fault_.kind == AccessKind::kWrite; }

  void ChooseLevel() {
    const Level max = state_.options.max_leaf_level;
    fault_.req_level = Level{1};
    if (!logs()) {
      fault_.req_level = MaxMappingLevelS2<G>(*fault_.slot, fault_.gfn, max);
    }
    fault_.goal_level = fault_.req_level;
    // Guest and host frames are congruent where a mapping is allowed.
    const uint64_t mask = PagesPer<G>(fault_.goal_level) - 1;
    MMU_DCHECK((fault_.gfn.value() & mask) == (fault_.pfn.value() & mask));
    fault_.pfn = Pfn(fault_.pfn.value() & ~mask);
  }

  // The rights that the mapping gets. Where writes are logged, only a write
  // makes the page writable (ARM-36), or the processor notes it.
  S2Write WantedWrite() const {
    if (fault_.map_writable != HostWritable::kYes) return S2Write::kNo;
    if (is_write() || !logs()) return S2Write::kYes;
    return state_.options.NotesWrites() ? S2Write::kNoted : S2Write::kNo;
  }

  FaultResult MapAtGoal(S2Cursor<G>& c) {
    const S2Descriptor old = c.old_spte();
    const S2Descriptor leaf = MakeS2Leaf(fault_.pfn, c.level(), WantedWrite());
    bool done = false;
    // More rights, or AF. What another vCPU was granted meanwhile stays.
    const S2Descriptor wanted =
        old.With(leaf.bits() & (s2_bits::kRights | s2_bits::kAccessFlag));
    if (c.IsPresentLeaf()) {
      MMU_CHECK(old.pfn() == leaf.pfn());
      if (wanted == old) return FaultResult::kSpurious;
    }
    // Before the entry can be used, so that no write comes before its mark. A
    // CLEAR cannot come in between: it takes the mark and then needs the lock
    // in write mode to protect the page.
    if (is_write() && leaf.IsWritable() && logs()) MarkDirty();
    AtHook(HookPoint::kMarkToInstall);
    if (c.IsPresentLeaf()) {
      done = state_.updater.ChangeRights(lock_, c, wanted);
    } else if (c.IsPresentTable()) {
      if (IsAllowedBelow()) return FaultResult::kSpurious;
      // After logging a block may take the place of small pages (ARM-37).
      done = state_.updater.Replace(lock_, c, leaf, nullptr);
    } else {
      done = state_.updater.Install(lock_, c, leaf);
      const S2Page<G>* const table = state_.updater.PageHolding(c);
      fault_.after_split = done && table != nullptr && table->lost_block;
    }
    if (done) return FaultResult::kFixed;
    // The retry marks again: a ring then has two entries for a page that became
    // dirty once.
    if (fault_.ring != nullptr) fault_.dirtied_pages = 0;
    return FaultResult::kRetry;
  }

  // Whether a page below the goal allows the access by now. The block would
  // undo a split that was asked for:
  //   1. a split breaks the block     2. the guest accesses it and faults
  //   3. the split links its table    4. this thread gets mmu_lock
  bool IsAllowedBelow() const {
    S2Cursor<G> c = state_.CursorOver(GfnRange::Of(fault_.gfn, 1), Level{1});
    for (; c.Valid(); c.Next()) {
      if (c.IsPresentLeaf()) return IsAllowedBy(c.old_spte());
    }
    return false;
  }
  bool IsAllowedBy(S2Descriptor leaf) const {
    const bool sets_flag = state_.options.SetsAccessFlag();
    const bool has_right = leaf.AfterAccess(fault_.kind).Allows(fault_.kind);
    return has_right && (sets_flag || leaf.IsAccessed());
  }

  void MarkDirty() {
    // One exit may have two faults: those of an access that crosses a page.
    static_assert(2 * kGfnsPerGranule<G> <= DirtyRing::kReservedEntries);
    const Gfn first = RoundDown<G>(fault_.gfn, Level{1});
    for (uint64_t i = 0; i < kGfnsPerGranule<G>; ++i) {
      if (MarkPageDirty(*fault_.slot, first + i, fault_.ring)) {
        ++fault_.dirtied_pages;
      }
    }
  }

  bool LinkEmptyTable(S2Cursor<G>& c) {
    S2Page<G>* const page = cache_.Take();
    page->table->FillUnpublished(S2Descriptor());
    state_.updater.PrepareChild(c, *page);
    // Counted before the link: a thread that tears the table down at once then
    // finds it counted.
    state_.updater.CountChild(1, Level{1}, 0);
    if (state_.updater.Install(
            lock_, c, MakeS2Table(reinterpret_cast<uint64_t>(page->table)))) {
      return true;
    }
    state_.updater.CountChild(-1, Level{1}, 0);
    cache_.Put(page);
    return false;
  }

  bool SplitBlock(S2Cursor<G>& c) {
    const Level level = c.level();
    const S2Neighbours neighbours = state_.options.bbm == BbmLevel::k0
                                        ? S2Neighbours::kUnmap
                                        : S2Neighbours::kKeep;
    S2SplitTable<G> table(state_, c, cache_, ChildOf(level), neighbours);
    if (!table.Link(lock_, c, nullptr)) return false;
    state_.parts.counters.CountSplit(level, SplitTrigger::kFault);
    fault_.split_huge_page = true;
    return true;
  }

  Stage2State<G>& state_;
  const MmuReadLocked& lock_;
  PageFault& fault_;
  S2Cache<G>& cache_;
};

}  // namespace

template <TableGeometry G>
FaultResult MapStage2(Stage2State<G>& state, const MmuReadLocked& lock,
                      PageFault& fault, S2Cache<G>& cache) {
  return Mapper<G>(state, lock, fault, cache).Run();
}

template <TableGeometry G>
FaultResult SetAccessFlagStage2(const Stage2State<G>& state,
                                const MmuReadLocked& lock, Gfn gfn) {
  RcuReadGuard rcu;
  S2Cursor<G> c = state.CursorOver(GfnRange::Of(gfn, 1), Level{1});
  for (; c.Valid(); c.Next()) {
    if (!c.IsPresentLeaf()) continue;
    if (c.old_spte().IsAccessed()) return FaultResult::kSpurious;
    return state.updater.ChangeRights(lock, c,
                                      c.old_spte().With(s2_bits::kAccessFlag))
               ? FaultResult::kFixed
               : FaultResult::kRetry;
  }
  return FaultResult::kRetry;
}

template FaultResult SetAccessFlagStage2(const Stage2State<Arm4K>&,
                                         const MmuReadLocked&, Gfn);
template FaultResult SetAccessFlagStage2(const Stage2State<Arm16K>&,
                                         const MmuReadLocked&, Gfn);
template FaultResult SetAccessFlagStage2(const Stage2State<Arm64K>&,
                                         const MmuReadLocked&, Gfn);
template FaultResult MapStage2(Stage2State<Arm4K>&, const MmuReadLocked&,
                               PageFault&, S2Cache<Arm4K>&);
template FaultResult MapStage2(Stage2State<Arm16K>&, const MmuReadLocked&,
                               PageFault&, S2Cache<Arm16K>&);
template FaultResult MapStage2(Stage2State<Arm64K>&, const MmuReadLocked&,
                               PageFault&, S2Cache<Arm64K>&);

}  // namespace mmu
