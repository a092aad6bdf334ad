// A pre-order walk over the entries of one root that cover a gfn range.
//
// It visits a parent before its children, each entry once, from the root down
// to `min_level`. It visits every entry that overlaps the range, so an upper
// entry's gfn may lie below the range's start (TDP-13). Other threads may
// change any entry meanwhile: `old_spte` is a snapshot, and only a
// compare-exchange on `slot()` tells whether the entry still has that value
// (TDP-25).
//
//   for (TdpCursor c(root, root_level, range, Level::k4K); c.Valid();
//        c.Next()) { ... }
//
// TdpCursor, the walk over SPTEs, is in paging/tdp_cursor.h. Other traits give
// the walk over page tables of another kind (paging/paging_traits.h). There,
// too, a gfn is 4 KiB, so the range may begin or end inside a leaf; the cursor
// visits that leaf like any entry that overlaps the range.
//
// After dropping mmu_lock or leaving the RCU section, call MarkYielded(): the
// current entry may not be used any more, and Next() then resumes the walk from
// the root (TDP-14, TDP-22).
//
// Externally synchronised by its thread. REQUIRES an RCU read section from
// construction (or Next()) until MarkYielded() (TDP-30).

#ifndef MMU_CORE_PAGING_PAGE_TABLE_CURSOR_H_
#define MMU_CORE_PAGING_PAGE_TABLE_CURSOR_H_

#include <array>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/paging/entry_slot.h"
#include "mmu_core/paging/entry_table.h"
#include "mmu_core/paging/paging_traits.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

template <PagingTraits Traits>
class PageTableCursor {
 public:
  using Geometry = typename Traits::Geometry;
  using Entry = typename Traits::Entry;
  using Slot = EntrySlot<Entry>;
  using Table = EntryTable<Geometry, Entry>;

  PageTableCursor(Table* root, Level root_level, GfnRange range,
                  Level min_level)
      : root_(root),
        root_level_(root_level),
        range_(Clamp(range, root_level, 1)),
        min_level_(min_level) {
    Restart();
  }
  // The root is `root_tables` tables, contiguous in memory. REQUIRES: 1 <=
  // root_tables <= Geometry::kMaxRootTables.
  PageTableCursor(Table* root, Level root_level, int root_tables,
                  GfnRange range, Level min_level)
      : root_(root),
        root_level_(root_level),
        range_(Clamp(range, root_level, root_tables)),
        min_level_(min_level) {
    MMU_DCHECK(1 <= root_tables && root_tables <= Geometry::kMaxRootTables);
    Restart();
  }

  // True while the cursor is at an entry within the range.
  bool Valid() const { return valid_ && gfn_ < range_.end; }

  // Advances: down if the entry points at a table, else sideways, else up and
  // sideways (TDP-11). REQUIRES: Valid().
  void Next() {
    if (yielded_) {
      Restart();
      return;
    }
    if (!TryStepDown()) AdvanceSideways();
  }

  // As Next(), but does not go down, even if the entry has become a pointer to
  // a table since it was read. REQUIRES: Valid(), not yielded.
  void NextAfterLeaf() {
    MMU_DCHECK(!yielded_);
    AdvanceSideways();
  }

  // Descends toward the first gfn of the range as far as there are tables;
  // equivalent to calling Next() as often as there are steps down. REQUIRES: as
  // constructed.
  void DescendToFirst() {
    while (level_ > min_level_ && old_spte_.IsPresentTable(level_)) {
      level_ = ChildOf(level_);
      Table* const table = Traits::TableOf(old_spte_);
      tables_[ToInt(level_)] = table;
      slot_ = &table->entries[IndexOf<Geometry>(next_last_level_gfn_, level_)];
      old_spte_ = slot_->Load();
    }
    gfn_ = RoundDown<Geometry>(next_last_level_gfn_, level_);
  }

  // Lets the walk go down to `level` from now on. REQUIRES: `level` is not
  // above the current minimum level.
  void LowerMinLevel(Level level) {
    MMU_DCHECK(level <= min_level_);
    min_level_ = level;
  }

  Slot& slot() const {
    MMU_DCHECK(!yielded_);
    return *slot_;
  }
  Entry old_spte() const { return old_spte_; }
  // Updates the snapshot after a lost compare-exchange or after a write.
  void SetOldSpte(Entry spte) { old_spte_ = spte; }
  Level level() const { return level_; }
  Gfn gfn() const { return gfn_; }  // rounded down to `level`
  GfnRange range() const { return range_; }
  // The number of entries from the current one to the end of its table or of
  // the range. Lets a plain loop run from slot() on, where a cursor step per
  // entry would cost more than the work on the entry. Such a loop ends with
  // SkipToLastEntry().
  int EntriesLeft() const {
    const int in_table =
        Geometry::kEntriesPerTable - IndexOf<Geometry>(gfn_, level_);
    const uint64_t in_range =
        (range_.end - gfn_ + PagesPer<Geometry>(level_) - 1) >>
        PagesShift<Geometry>(level_);
    return in_range < static_cast<uint64_t>(in_table)
               ? static_cast<int>(in_range)
               : in_table;
  }
  // Advances to the last of the EntriesLeft() entries without entering any:
  // EntriesLeft() - 1 steps sideways. REQUIRES: Valid(), not yielded.
  void SkipToLastEntry() { SkipSideways(EntriesLeft() - 1); }
  // Advances sideways over `steps` entries without entering any. REQUIRES:
  // Valid(), not yielded, 0 <= steps < EntriesLeft().
  void SkipSideways(int steps) {
    MMU_DCHECK(!yielded_);
    MMU_DCHECK(0 <= steps && steps < EntriesLeft());
    if (steps == 0) return;
    gfn_ += static_cast<uint64_t>(steps) * PagesPer<Geometry>(level_);
    next_last_level_gfn_ = gfn_;
    slot_ += steps;
    old_spte_ = slot_->Load();
  }
  GfnRange entry_range() const {
    return GfnRange::Of(gfn_, PagesPer<Geometry>(level_));
  }

  bool IsPresentLeaf() const { return old_spte_.IsPresentLeaf(level_); }
  bool IsPresentTable() const { return old_spte_.IsPresentTable(level_); }

  // --- Yielding (TDP-20..22) ---

  // True if at least one last-level step was made since the last yield. Without
  // this rule a walk under permanent contention would never end.
  bool MayYield() const { return next_last_level_gfn_ != yielded_gfn_; }
  void MarkYielded() { yielded_ = true; }
  bool yielded() const { return yielded_; }
  // The gfn at which the walk resumes after a yield.
  Gfn next_last_level_gfn() const { return next_last_level_gfn_; }

 private:
  // Clamps the range to the gfns that the root can address (TDP-15).
  static GfnRange Clamp(GfnRange range, Level root_level, int root_tables) {
    const Gfn limit(
        PagesPer<Geometry>(root_level) *
        static_cast<uint64_t>(Geometry::kEntriesPerTable * root_tables));
    return {range.start, range.end < limit ? range.end : limit};
  }

  // Goes to the root's entry for next_last_level_gfn_. Its children are then
  // reached by stepping down toward that gfn.
  void Restart() {
    MMU_DCHECK(InRcuReadSection());
    yielded_ = false;
    yielded_gfn_ = next_last_level_gfn_;
    level_ = root_level_;
    tables_[ToInt(level_)] = RootTableOf(next_last_level_gfn_);
    gfn_ = RoundDown<Geometry>(next_last_level_gfn_, level_);
    valid_ = !range_.empty() && next_last_level_gfn_ < range_.end;
    if (valid_) Load();
  }

  // The root's table that has the entry for `gfn`. The index is masked to the
  // largest possible root, so `gfn` may lie past the root's end.
  Table* RootTableOf(Gfn gfn) const {
    const uint64_t index = gfn.value() >> PagesShift<Geometry>(root_level_) >>
                           Geometry::kEntryBits;
    return root_ + (index & (Geometry::kMaxRootTables - 1));
  }

  void Load() {
    slot_ = &tables_[ToInt(level_)]->entries[IndexOf<Geometry>(gfn_, level_)];
    old_spte_ = slot_->Load();
  }

  bool TryStepDown() {
    if (level_ <= min_level_) return false;
    // Read again: the table may have been unlinked since the snapshot.
    old_spte_ = slot_->Load();
    if (!old_spte_.IsPresentTable(level_)) return false;
    level_ = ChildOf(level_);
    tables_[ToInt(level_)] = Traits::TableOf(old_spte_);
    gfn_ = RoundDown<Geometry>(next_last_level_gfn_, level_);
    Load();
    return true;
  }

  // Sideways, else up and sideways.
  void AdvanceSideways() {
    do {
      if (TryStepSide()) return;
    } while (TryStepUp());
    valid_ = false;
  }

  bool TryStepSide() {
    const int index = IndexOf<Geometry>(gfn_, level_);
    if (index == Geometry::kEntriesPerTable - 1) return TryNextRootTable();
    gfn_ = gfn_ + PagesPer<Geometry>(level_);
    next_last_level_gfn_ = gfn_;
    ++slot_;
    if (gfn_ >= range_.end) {
      valid_ = false;
      return true;
    }
    old_spte_ = slot_->Load();
    return true;
  }

  // Moves from the last entry of one root table to the first of the next.
  bool TryNextRootTable() {
    if constexpr (Geometry::kMaxRootTables > 1) {
      if (level_ != root_level_) return false;
      gfn_ += PagesPer<Geometry>(level_);
      next_last_level_gfn_ = gfn_;
      // The range ends at or before the end of the root's tables.
      valid_ = gfn_ < range_.end;
      if (valid_) {
        tables_[ToInt(level_)] = RootTableOf(gfn_);
        Load();
      }
      return true;
    }
    return false;
  }

  bool TryStepUp() {
    if (level_ == root_level_) return false;
    level_ = ParentOf(level_);
    gfn_ = RoundDown<Geometry>(gfn_, level_);
    Load();
    return true;
  }

  Table* const root_;  // the first, if the root is several tables
  const Level root_level_;
  const GfnRange range_;
  Level min_level_;

  Gfn next_last_level_gfn_ = range_.start;
  Gfn yielded_gfn_ = range_.start;
  // Indexed by level. [0] is unused.
  std::array<Table*, ToInt(Geometry::kMaxLevel) + 1> tables_{};
  Slot* slot_ = nullptr;
  Entry old_spte_;
  Level level_ = root_level_;
  Gfn gfn_;
  bool valid_ = false;
  bool yielded_ = false;
};

}  // namespace mmu

#endif  // MMU_CORE_PAGING_PAGE_TABLE_CURSOR_H_
