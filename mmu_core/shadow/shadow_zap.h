// The end of shadow pages: zapped under mmu_lock, committed, freed.
//
//   ZappedPages zapped;
//   ...Prepare(lock, page, zapped)...    unlinked, no longer found
//   Commit(lock, zapped, ...)            one remote flush, then freed (SHD-22)
//
// The states of a page are in shadow/shadow_page_state.h.

#ifndef MMU_CORE_SHADOW_SHADOW_ZAP_H_
#define MMU_CORE_SHADOW_SHADOW_ZAP_H_

#include <cstdint>
#include <optional>

#include "absl/functional/function_ref.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_page_set.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/shadow/unsync_marks.h"
#include "mmu_core/shadow/write_tracking.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/refill.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {

// Pages that are zapped and must be committed (checked). Threads that lack
// pages wait for the commit (sync/refill.h). Externally synchronised: belongs
// to one thread.
class [[nodiscard]] ZappedPages {
 public:
  ZappedPages() = default;

  bool empty() const { return list_.empty(); }

 private:
  friend class ShadowZap;
  ShadowPageList list_;
  std::optional<Reclaim> reclaim_;  // from the first page's Prepare on
};

// The result of zapping a page.
struct ZapOutcome {
  uint64_t pages = 0;  // number added to ZappedPages, with other pages
  // Other pages were zapped too: a loop over active pages, or over a list of
  // links, must start again (SHD-23).
  bool others = false;
};

// Whether the guest runs on the TDP MMU, so that the shadow MMU serves only
// nested guests.
enum class TdpEnabled : uint8_t { kNo, kYes };

// Thread-safe under the locks that the witnesses name. No call allocates.
class ShadowZap {
 public:
  // After this many pages a long zap releases mmu_lock if other threads wait.
  static constexpr uint64_t kBatch = 10;

  struct Pages {
    ShadowPageSet& set;
    ShadowLinks& links;
    UnsyncMarks& unsync;
    WriteTracking& tracking;
  };
  // `nx_huge_pages` lists pages that were executed from; null: no mitigation.
  ShadowZap(const ShadowParts& parts, const Pages& pages, TdpEnabled tdp,
            NxHugePageList* nx_huge_pages = nullptr)
      : parts_(parts),
        pages_(pages),
        tdp_(tdp),
        nx_huge_pages_(nx_huge_pages) {}
  ShadowZap(const ShadowZap&) = delete;
  ShadowZap& operator=(const ShadowZap&) = delete;

  // --- One page. ---

  // Zaps `page` (SHD-20): the unsync pages below it; its leafs; the links to
  // its children; the links of its parents; its write tracking and unsync mark.
  // A root in use becomes an invalid root, and unless it was obsolete before,
  // all vCPUs are asked to drop obsolete roots. Any other page goes to
  // `zapped`.
  ZapOutcome Prepare(const MmuWriteLocked& lock, ShadowPageState& page,
                     ZappedPages& zapped);

  // Empties an SPTE of any kind: a leaf, a link or an MMIO SPTE; present or
  // not. If that leaves a child of a nested guest's page without a parent, and
  // TDP is enabled and the child is no root, the child is zapped with
  // everything below it; other children stay and can be found again (SHD-21).
  // Returns the number of pages added to `zapped`. The caller flushes if the
  // SPTE was present.
  uint64_t ZapSpte(const MmuWriteLocked& lock, SpteSlot& sptep,
                   ZappedPages& zapped);

  // Flushes once if there are pages in `zapped` or `flush` is pending, then has
  // the pages freed after an RCU grace period (SHD-22). On return no vCPU walks
  // them any more.
  void Commit(const MmuWriteLocked& lock, ZappedPages& zapped,
              TlbFlushBatch& flush, MmuCost* cost);
  // The same with nothing else to flush.
  void Commit(const MmuWriteLocked& lock, ZappedPages& zapped, MmuCost* cost);

  // --- Roots. ---

  // Adds, or removes, a root reference of a vCPU to `page`. Removing the last
  // reference of an invalid root adds it to `zapped` (it is prepared, and
  // counted as zapped, again). REQUIRES: PutRoot after GetRoot; GetRoot of an
  // active page.
  void GetRoot(const MmuWriteLocked& lock, ShadowPageState& page);
  void PutRoot(const MmuWriteLocked& lock, ShadowPageState& page,
               ZappedPages& zapped);

  // --- Many pages. ---

  // Zaps and commits the oldest pages that are no roots in use, until `pages`
  // were zapped or none are left (SHD-26, SHD-27). Returns the number of zapped
  // pages; pages below others count, so it may be more than `pages`.
  uint64_t ZapOldest(const MmuWriteLocked& lock, uint64_t pages, MmuCost* cost);

  // Zapping the whole VM takes two steps (SHD-24). StartGeneration makes all
  // pages obsolete; the caller makes all vCPUs drop their roots under the same
  // hold of `lock`. Then ZapObsolete tears the pages down, and releases the
  // lock in between: by then no vCPU can reach the pages that it unlinks.
  // REQUIRES: both under one hold of slots_lock, and one Reclaim
  // (sync/refill.h).
  void StartGeneration(const MmuWriteLocked& lock) {
    pages_.set.StartGeneration(lock);
  }
  void ZapObsolete(MmuWriteLocked& lock, MmuCost* cost);

  // Zaps up to `max_pages` of the pages that are listed because the guest
  // executes from them, oldest first, so that huge pages can replace them
  // (SPTE-53); those for which `keep` is true are only taken off the list.
  // Commits before it releases the lock and at the end. Returns the number of
  // zapped pages. REQUIRES: there is a list.
  uint64_t RecoverNxHugePages(MmuWriteLocked& lock, uint64_t max_pages,
                              absl::FunctionRef<bool(const ShadowPage&)> keep,
                              MmuCost* cost);

  // Zaps and commits all pages, at the VM's end. Invalid roots stay as long as
  // they are referenced.
  void ZapAll(const MmuWriteLocked& lock, MmuCost* cost);

 private:
  // Zaps the unsync pages below `page`; returns their number.
  uint64_t ZapUnsyncBelow(const MmuWriteLocked& lock, ShadowPageState& page,
                          ZappedPages& zapped);

  const ShadowParts parts_;
  const Pages pages_;
  const TdpEnabled tdp_;
  NxHugePageList* const nx_huge_pages_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_ZAP_H_
