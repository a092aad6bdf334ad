// Replacing one block by a table.

#ifndef MMU_CORE_STAGE2_S2_SPLIT_TABLE_H_
#define MMU_CORE_STAGE2_S2_SPLIT_TABLE_H_

#include <atomic>
#include <cstdint>

#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/stage2/s2_descriptor.h"
#include "mmu_core/stage2/s2_format.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/stats/mmu_cost.h"

namespace mmu {

// What becomes of the pages of the block.
enum class S2Neighbours : uint8_t {
  kKeep,   // the table maps all of them, with the same rights
  kUnmap,  // the table is empty: each page faults at its next access
};

// The table that replaces the block under a cursor, with the tables below it.
// Nothing is allocated: all tables come from a cache, and go back there if the
// block is not replaced. Belongs to the thread that splits.
template <TableGeometry G>
class S2SplitTable {
 public:
  // `leaf_level`: of the leafs of the new tables, below the block's. REQUIRES:
  // `cache` has a table, and with kKeep one for each block down to
  // `leaf_level`; with kUnmap FEAT_BBM level 0, since the addresses of the
  // block get another meaning.
  S2SplitTable(const Stage2State<G>& state, const S2Cursor<G>& cursor,
               S2Cache<G>& cache, Level leaf_level, S2Neighbours neighbours)
      : state_(state), cache_(cache), leaf_level_(leaf_level) {
    MMU_DCHECK(leaf_level < cursor.level());
    top_ = Take();
    state_.updater.PrepareChild(cursor, *top_);
    top_->lost_block = neighbours == S2Neighbours::kUnmap;
    if (neighbours == S2Neighbours::kKeep) {
      Fill(*top_, cursor.old_spte(), cursor.level());
    } else {
      top_->table->FillUnpublished(S2Descriptor());
    }
  }
  ~S2SplitTable() {
    while (S2Page<G>* const page = taken_) {
      taken_ = page->next_free;
      cache_.Put(page);
    }
  }
  S2SplitTable(const S2SplitTable&) = delete;
  S2SplitTable& operator=(const S2SplitTable&) = delete;

  // Replaces the block. False if another thread changed it meanwhile. Called
  // once, with the cursor of the constructor.
  template <typename Lock>
  bool Link(const Lock& lock, S2Cursor<G>& cursor, MmuCost* cost) {
    // Counted before the link: for a moment a reader of the counters may see
    // the pages of both sizes, but never too few pages (STAT-42).
    state_.updater.CountChild(tables_, leaf_level_, leafs_);
    lock.CountWork(tables_ * G::kEntriesPerTable);
    AtHook(HookPoint::kTableFilledToLink);
    if (state_.updater.Replace(lock, cursor, EntryFor(*top_), cost)) {
      taken_ = nullptr;
      return true;
    }
    state_.updater.CountChild(-tables_, leaf_level_, -leafs_);
    return false;
  }

 private:
  static S2Descriptor EntryFor(const S2Page<G>& page) {
    return MakeS2Table(reinterpret_cast<uint64_t>(page.table));
  }

  S2Page<G>* Take() {
    S2Page<G>* const page = cache_.Take();
    page->next_free = taken_;
    taken_ = page;
    ++tables_;
    return page;
  }

  // Fills the table, which no other thread sees yet, with what `block` of
  // `level` maps.
  void Fill(S2Page<G>& page, S2Descriptor block, Level level) {
    for (int i = 0; i < G::kEntriesPerTable; ++i) {
      S2Slot& slot = page.table->entries[i];
      const S2Descriptor child = MakeS2SplitChild<G>(block, level, i);
      if (page.level == leaf_level_) {
        slot.StoreUnpublished(child);
        continue;
      }
      S2Page<G>* const below = Take();
      below->level = ChildOf(page.level);
      below->gfn =
          page.gfn + static_cast<uint64_t>(i) * PagesPer<G>(page.level);
      below->parent_entry = &slot;
      below->parent = &page;
      below->lost_block = false;
      Fill(*below, child, page.level);
      slot.StoreUnpublished(EntryFor(*below));
    }
    page.references.store(1 + G::kEntriesPerTable, std::memory_order_relaxed);
    if (page.level == leaf_level_) leafs_ += G::kEntriesPerTable;
  }

  const Stage2State<G>& state_;
  S2Cache<G>& cache_;
  const Level leaf_level_;
  S2Page<G>* taken_ = nullptr;  // chained by next_free
  S2Page<G>* top_ = nullptr;
  int64_t tables_ = 0;
  int64_t leafs_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_S2_SPLIT_TABLE_H_
