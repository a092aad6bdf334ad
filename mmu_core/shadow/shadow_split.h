// Splitting the huge pages of nested guests ahead of their writes (SHD-70..83).
//
// A huge SPTE is replaced by a link to a direct page of 512 smaller ones that
// translate alike, so no flush is needed: a TLB may hold either translation.
// There is one exception. Several huge SPTEs, aliases, may map a gfn, and
// aliases with equal rights share the page below. If only some of them were
// split before, that page exists, and may hold tables that do not map
// everything that the huge SPTE does:
//
//   huge SPTE A ---+                   entry 0   leaf: same translation
//                  +--> direct page -> entry 1   none: filled now
//   huge SPTE B - -+  (found when B    entry 2   a table, in part empty
//                      is split)
//
// After B is linked to the page, a part of B's mapping is gone, and a thread
// that changes that part later finds no SPTE, so it does not know that a flush
// is needed. Therefore the split flushes, after B is dropped and before the
// link is made (SHD-79).
//
// A split uses caches that are filled without mmu_lock. It needs a page and up
// to 513 descriptors, since each of the 512 leafs may need a new head in its
// rmap, and the page has a parent list (SHD-76).

#ifndef MMU_CORE_SHADOW_SHADOW_SPLIT_H_
#define MMU_CORE_SHADOW_SHADOW_SPLIT_H_

#include <bitset>

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/huge_page_outcomes.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/rmap/slot_rmap_cursor.h"
#include "mmu_core/shadow/shadow_caches.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/shadow/shadow_zap.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Thread-safe under the locks that the witnesses name.
class ShadowSplit {
 public:
  struct Options {
    // Without the TDP MMU nothing is split ahead: a policy, not a limitation
    // (SHD-70).
    TdpEnabled tdp = TdpEnabled::kYes;
    const NxHugePages* nx_huge_pages = nullptr;  // null: no mitigation
  };
  ShadowSplit(const ShadowParts& parts, ShadowPages& pages,
              const Options& options)
      : parts_(parts), pages_(pages), options_(options) {}
  ShadowSplit(const ShadowSplit&) = delete;
  ShadowSplit& operator=(const ShadowSplit&) = delete;

  // Splits the huge leafs of nested guests that map pages of `range`, a part of
  // the slot, down to `target`: the largest first, in each level by ascending
  // gfn, all aliases of a gfn (SHD-71). Releases `lock` if other threads wait,
  // the hold has reached `limit`, or `caches` must be filled. No effect on a
  // slot without rmaps.
  //
  // Best effort: a gfn is skipped if no more than ShadowPages::kMinFree pages
  // are available (SHD-73; limit_count) or the caches cannot be filled
  // (no_memory_count); both count gfns, and next_gfn is the range's end.
  // REQUIRES: slots_lock, which keeps the slot and guards `caches` (LCK-05).
  SplitOutcome Split(MmuWriteLocked& lock, const Memslot& slot, GfnRange range,
                     Level target, SplitTrigger trigger, ShadowCaches& caches,
                     MmuCost* cost, const HoldLimit& limit = {});

 private:
  struct Pass;

  // Splits all leafs of the cursor's rmap.
  void SplitRmap(Pass& pass, SlotRmapCursor& cursor);
  // The first leaf to be split; null if there is none.
  static SpteSlot* FirstSplittable(const MmuWriteLocked& lock,
                                   const RmapHead& head, MmuCost* cost);
  void SplitSpte(Pass& pass, SpteSlot& sptep);
  // Copies to the leafs of `child` the bits that the processor had set in the
  // replaced huge leaf when it was dropped as `huge`.
  static void KeepAssists(ShadowPageState& child,
                          const std::bitset<kEntriesPerTable>& made, Spte huge,
                          const SpteFormat& format);

  const ShadowParts parts_;
  ShadowPages& pages_;
  const Options options_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_SPLIT_H_
