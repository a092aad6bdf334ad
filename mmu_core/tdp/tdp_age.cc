// Testing and clearing Accessed bits, under RCU alone (AGE-10..17).

#include <algorithm>
#include <cstdint>

#include "mmu_core/base/check.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"

namespace mmu {
namespace {

void SetBits(AgeResult& result, uint64_t first, uint64_t count) {
  for (uint64_t bit = first; bit < first + count;) {
    if (bit % 64 == 0 && first + count - bit >= 64) {
      result.young[bit / 64] = ~uint64_t{0};
      bit += 64;
    } else {
      result.young[bit / 64] |= uint64_t{1} << (bit % 64);
      ++bit;
    }
  }
}

}  // namespace

void TdpMmu::Age(int as_id, GfnRange range, AgeMode mode, AgeResult& result,
                 MmuCost* cost) const {
  const SpteFormat& format = parts_.format;
  int64_t visited = 0;
  RcuReadGuard rcu;
  for (TdpRoot* root = roots_.FirstRcu(RootFilter::kValid, as_id);
       root != nullptr;
       root = roots_.NextRcu(root, RootFilter::kValid, as_id)) {
    for (TdpCursor c(root->table(), root->level(), range, Level::k4K);
         c.Valid(); c.Next()) {
      ++visited;
      if (!c.IsPresentLeaf()) continue;
      const GfnRange pages = c.entry_range().Intersect(range);
      const Spte spte = c.old_spte();
      if (!format.IsAccessed(spte)) {
        result.old_page_count += pages.pages();
        continue;
      }
      result.young_page_count += pages.pages();
      SetBits(result, pages.start - range.start, pages.pages());
      if (mode == AgeMode::kTestAndClear) {
        // One attempt. If the entry changed meanwhile the page was young all
        // the same, and whoever changed it has the last word (AGE-13).
        Spte expected = spte;
        c.slot().CompareExchange(expected, format.WithoutAccessed(spte));
      }
    }
  }
  if (cost != nullptr) cost->sptes_visited_count += visited;
}

}  // namespace mmu
