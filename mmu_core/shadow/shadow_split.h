// Splitting the huge pages that nested guests map, ahead of their writes
// (SHD-70..83).
//
// A huge SPTE is replaced by a link to a direct page of 512 smaller ones that
// translate as it did, so nobody has to flush: whichever of the two a TLB has
// is right. There is one exception. A gfn may be mapped by several huge SPTEs,
// aliases, and those with equal rights share the page below. Where only some
// of them were split before, that page exists, and may hold tables that do not
// map all that the huge SPTE does:
//
//   huge SPTE A ---+                   entry 0   leaf: same translation
//                  +--> direct page -> entry 1   none: filled now
//   huge SPTE B - -+  (found when B    entry 2   a table, in part empty
//                      is split)
//
// With B linked to the page, a part of what B mapped is mapped no more, and
// whoever changes that part later finds no SPTE, so knows of no flush that is
// owed. The split flushes therefore, after B is gone and before the link is
// there (SHD-79).
//
// What is consumed is taken from caches that are filled without mmu_lock: a
// page, and up to 513 descriptors, since each of the 512 leafs may be the one
// too many in its rmap's head, and the page has a list of parents (SHD-76).

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

// Thread-safe with the witnesses named.
class ShadowSplit {
 public:
  struct Options {
    // Without the TDP MMU nothing is split ahead: a policy, not a limit
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
  // gfn, all aliases of a gfn (SHD-71). Lets go of `lock` where others wait,
  // the hold has reached `limit`, or `caches` are to be filled. No effect on a
  // slot without rmaps.
  //
  // Best effort: a gfn is given up where no more than ShadowPages::kMinFree
  // pages are available (SHD-73; limit_count) or the caches cannot be filled
  // (no_memory_count); the counts are of gfns, and next_gfn is the range's end.
  // REQUIRES: slots_lock, which keeps the slot and guards `caches` (LCK-05).
  SplitOutcome Split(MmuWriteLocked& lock, const Memslot& slot, GfnRange range,
                     Level target, SplitTrigger trigger, ShadowCaches& caches,
                     MmuCost* cost, const HoldLimit& limit = {});

 private:
  struct Pass;

  // All leafs of the rmap that the cursor is at.
  void SplitRmap(Pass& pass, SlotRmapCursor& cursor);
  // The first that is to be split; null if there is none.
  static SpteSlot* FirstSplittable(const MmuWriteLocked& lock,
                                   const RmapHead& head, MmuCost* cost);
  void SplitSpte(Pass& pass, SpteSlot& sptep);
  // Gives the leafs of `child` what the processor set in the huge leaf that
  // they replace until it was dropped as `huge`.
  static void KeepAssists(ShadowPageState& child,
                          const std::bitset<kEntriesPerTable>& made, Spte huge,
                          const SpteFormat& format);

  const ShadowParts parts_;
  ShadowPages& pages_;
  const Options options_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_SPLIT_H_
