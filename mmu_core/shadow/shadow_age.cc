#include "mmu_core/shadow/shadow_age.h"

#include <algorithm>
#include <cstdint>

#include "absl/types/span.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/rmap/slot_rmap_cursor.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

// Clears the mark that the leaf `spte` was accessed. If the format has an
// Accessed bit, an atomic AND is safe: an entry that another thread drops
// meanwhile stays in its rmap, and therefore empty, until this thread unlocks
// the rmap (RACE-28). An empty entry does not have the bit. Access tracking
// changes several bits, so this function makes one attempt; if another thread
// has changed the entry, that change stays (AGE-13).
void ClearAccessed(SpteSlot& sptep, Spte spte, const SpteFormat& format) {
  AtHook(HookPoint::kAgeToExchange);
  if (format.has_ad()) {
    MMU_DCHECK((Spte::Initial().bits() & format.accessed_mask()) == 0);
    sptep.FetchAnd(~format.accessed_mask());
  } else {
    sptep.CompareExchange(spte, format.WithoutAccessed(spte));
  }
}

}  // namespace

void ShadowAge::Age(const Memslot& slot, GfnRange pages, GfnRange range,
                    AgeMode mode, AgeResult& result, MmuCost* cost) const {
  MMU_DCHECK(InRcuReadSection() && range.Contains(pages) &&
             result.mapped.size() == result.young.size());
  const SlotRmaps* const rmaps = slot.shadow_rmaps();
  if (rmaps == nullptr) return;
  int64_t visited = 0;
  for (SlotRmapCursor c(*rmaps, pages, Level::k4K, kMaxLeafLevel); c.Valid();
       c.Next()) {
    bool mapped = false;
    bool young = false;
    {
      RmapReadLocked rmap(c.head(), parts_.counters);
      for (RmapIterator it = rmap.Entries(); it.Valid(); it.Next()) {
        ++visited;
        const Spte spte = it.sptep().Load();
        if (!spte.IsPresent()) continue;  // is being dropped
        mapped = true;
        const SpteFormat& format = parts_.FormatOf(PageHolding(it.sptep()));
        if (!format.IsAccessed(spte)) continue;
        young = true;
        if (mode == AgeMode::kTestAndClear) {
          ClearAccessed(it.sptep(), spte, format);
        }
      }
    }
    if (!mapped) continue;
    const Gfn end = RoundDown(c.gfn(), c.level()) + PagesPer(c.level());
    const BitRun bits = {c.gfn() - result.start,
                         std::min(end, pages.end) - result.start};
    SetRun(absl::MakeSpan(result.mapped), bits);
    if (!young) continue;
    SetRun(absl::MakeSpan(result.young), bits);
    if (end > range.end) result.young_until = std::max(result.young_until, end);
  }
  if (cost != nullptr) cost->sptes_visited_count += visited;
}

}  // namespace mmu
