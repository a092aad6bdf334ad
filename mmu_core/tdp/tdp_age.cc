// Testing and clearing Accessed bits, under RCU alone (AGE-10..17).

#include <cstdint>

#include "mmu_core/aging/age_entries.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"

namespace mmu {
namespace {

// Makes one attempt. If the entry changed meanwhile, the page was young
// nevertheless, and the other thread's value stays (AGE-13). An atomic AND
// would not do: it would clear a bit of a frozen entry.
void TryClear(SpteSlot& slot, Spte expected, const SpteFormat& format) {
  const Spte wanted = format.WithoutAccessed(expected);
  AtHook(HookPoint::kAgeToExchange);
  slot.CompareExchange(expected, wanted);
}

}  // namespace

void TdpMmu::Age(int as_id, GfnRange range, AgeMode mode, AgeResult& result,
                 MmuCost* cost) const {
  const SpteFormat& format = parts_.format;
  const AgeBits bits_of = {spte_bits::kMmuPresent, format.accessed_mask()};
  const auto clear = [&format](SpteSlot& slot, Spte spte) {
    TryClear(slot, spte, format);
  };
  int64_t visited = 0;
  RcuReadGuard rcu;
  for (TdpRoot* root = roots_.FirstRcu(RootFilter::kValid, as_id);
       root != nullptr;
       root = roots_.NextRcu(root, RootFilter::kValid, as_id)) {
    TdpCursor c(root->table(), root->level(), range, Level::k4K);
    while (c.Valid()) {
      if (c.level() == Level::k4K) {
        const int entries = c.EntriesLeft();
        AgeEntries<1>(&c.slot(), entries, c.gfn() - result.start, bits_of, mode,
                      result, clear);
        c.SkipToLastEntry();
        visited += entries;
        c.NextAfterLeaf();
        continue;
      }
      ++visited;
      if (c.IsPresentLeaf()) {
        AgeLeaf(c, range, format.IsAccessed(c.old_spte()), mode, result, clear);
      } else {
        c.Next();
      }
    }
  }
  if (cost != nullptr) cost->sptes_visited_count += visited;
}

}  // namespace mmu
