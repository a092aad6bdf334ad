// The walk over the rmaps of a memslot (SHD-18).

#ifndef MMU_CORE_RMAP_SLOT_RMAP_CURSOR_H_
#define MMU_CORE_RMAP_SLOT_RMAP_CURSOR_H_

#include <cstdint>

#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/rmap/slot_rmaps.h"

namespace mmu {

// Level by level from low to high, within a level by ascending gfn. Stops at
// rmaps that are not empty, and also at an empty one after kEmptyRun empty ones
// in a row, so that the walk over a sparsely mapped slot can yield as well.
//
// Between two rmaps the walk may release mmu_lock any number of times: the
// position is a gfn, and the rmap heads stay in place as long as the slot
// lives. Anything read from an rmap before is then out of date.
//
//   YieldPoint<MmuWriteLocked> yield(lock);
//   for (SlotRmapCursor c(rmaps, range, Level::k4K, Level::k1G); c.Valid();
//        c.Next()) {
//     changed = DoSomethingTo(c.head(), batch) || changed;
//     yield.MaybeYield(c, &batch, cost);
//   }
//
// With a batch, MaybeYield flushes it before it releases the lock. With null
// instead, the caller keeps its batch pending and flushes it at the end.
//
// Thread-compatible. The slot must outlive the cursor; in a walk that yields,
// the caller's slots_lock or RCU section ensures that.
class SlotRmapCursor {
 public:
  // One page of rmap heads.
  static constexpr int kEmptyRun = 512;

  // The rmaps of levels `first` to `last` (k1G at most) whose blocks overlap
  // `range`, which must be a part of the slot (checked).
  SlotRmapCursor(const SlotRmaps& rmaps, GfnRange range, Level first,
                 Level last)
      : rmaps_(rmaps), range_(range), last_(last), level_(first) {
    MMU_CHECK(rmaps.range().Contains(range) && last <= kMaxLeafLevel);
    if (range.empty()) return;
    StartLevel();
    Settle();
  }

  bool Valid() const { return head_ != nullptr; }
  // The following REQUIRE Valid().
  Level level() const { return level_; }
  // The first gfn of the block that lies in the range.
  Gfn gfn() const { return gfn_; }
  RmapHead& head() const { return *head_; }

  void Next() {
    stepped_ = true;
    Advance();
    Settle();
  }

  // For YieldPoint: true only after a step since the last yield.
  bool MayYield() const { return stepped_; }
  void MarkYielded() { stepped_ = false; }

 private:
  void StartLevel() {
    gfn_ = range_.start;
    head_ = &rmaps_.Head(gfn_, level_);
    end_ = &rmaps_.Head(range_.end - 1, level_) + 1;
  }
  // Moves to the next rmap, empty or not.
  void Advance() {
    gfn_ = RoundDown(gfn_, level_) + PagesPer(level_);
    if (++head_ != end_) return;
    if (level_ == last_) {
      head_ = nullptr;
      return;
    }
    level_ = ParentOf(level_);
    StartLevel();
  }
  void Settle() {
    for (int empty = 0; head_ != nullptr && head_->empty() && empty < kEmptyRun;
         ++empty) {
      Advance();
    }
  }

  const SlotRmaps& rmaps_;
  const GfnRange range_;
  const Level last_;
  Level level_;
  Gfn gfn_;
  RmapHead* head_ = nullptr;  // null: the walk is over
  RmapHead* end_ = nullptr;   // of this level
  bool stepped_ = true;
};

}  // namespace mmu

#endif  // MMU_CORE_RMAP_SLOT_RMAP_CURSOR_H_
