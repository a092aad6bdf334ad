// How shadow pages go: zapped under mmu_lock, committed, freed.
//
//   ZappedPages zapped;
//   ...Prepare(lock, page, zapped)...    unlinked, found by nobody any more
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

// Pages that are zapped, and not committed yet: they must be (checked). Who
// lacks pages waits for that (sync/refill.h).
// Externally synchronised: belongs to one thread.
class [[nodiscard]] ZappedPages {
 public:
  ZappedPages() = default;

  bool empty() const { return list_.empty(); }

 private:
  friend class ShadowZap;
  ShadowPageList list_;
  std::optional<Reclaim> reclaim_;  // from the first page's Prepare on
};

// What a page's zap did.
struct ZapOutcome {
  uint64_t pages = 0;  // how many went to ZappedPages, others included
  // Other pages were zapped too: a loop over active pages, or over a list of
  // what hangs together, must begin anew (SHD-23).
  bool others = false;
};

// Whether the guest is run on the TDP MMU, so that the shadow MMU is for nested
// guests only.
enum class TdpEnabled : uint8_t { kNo, kYes };

// Thread-safe with the witnesses named. No call allocates.
class ShadowZap {
 public:
  // Pages after which a long zap lets others have mmu_lock, if they wait.
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

  // Zaps `page` (SHD-20): unsync pages below it; its leafs; the links to its
  // children; the links of its parents; its write tracking and unsync mark. If
  // it is a root in use it becomes an invalid root, and unless it was obsolete
  // before, all vCPUs are asked to let go of such; else it goes to `zapped`.
  ZapOutcome Prepare(const MmuWriteLocked& lock, ShadowPageState& page,
                     ZappedPages& zapped);

  // Empties the SPTE, whatever it is: a leaf, a link or the like; present or
  // not. The child of a nested guest's page that has no parent any more is
  // zapped with all below, if TDP is enabled and it is no root; other children
  // stay, to be found again (SHD-21). Returns how many pages went to `zapped`.
  // The caller flushes, if the SPTE was present.
  uint64_t ZapSpte(const MmuWriteLocked& lock, SpteSlot& sptep,
                   ZappedPages& zapped);

  // Flushes once if there are pages in `zapped` or `flush` is pending, then
  // has the pages freed after an RCU grace period (SHD-22). When it returns no
  // vCPU walks them any more.
  void Commit(const MmuWriteLocked& lock, ZappedPages& zapped,
              TlbFlushBatch& flush, MmuCost* cost);
  // The same with nothing else to flush.
  void Commit(const MmuWriteLocked& lock, ZappedPages& zapped, MmuCost* cost);

  // --- Roots. ---

  // One more, or one less, root of a vCPU is `page`. An invalid root goes to
  // `zapped` with the last (it is prepared, and counted as zapped, again).
  // REQUIRES: PutRoot after GetRoot; GetRoot of an active page.
  void GetRoot(const MmuWriteLocked& lock, ShadowPageState& page);
  void PutRoot(const MmuWriteLocked& lock, ShadowPageState& page,
               ZappedPages& zapped);

  // --- Many pages. ---

  // Zaps and commits the oldest pages that are no roots in use, until `pages`
  // went or there are none left (SHD-26, SHD-27). Returns how many went; pages
  // below others count, so it may be more.
  uint64_t ZapOldest(const MmuWriteLocked& lock, uint64_t pages, MmuCost* cost);

  // Zapping the whole VM is two steps (SHD-24). First all pages become
  // obsolete; the caller has all vCPUs let go of their roots under the same
  // hold of `lock`. Then ZapObsolete takes them apart, and lets go of the lock
  // in between: what it unlinks, no vCPU can reach by then. REQUIRES: both
  // under one hold of slots_lock, and one Reclaim (sync/refill.h).
  void StartGeneration(const MmuWriteLocked& lock) {
    pages_.set.StartGeneration(lock);
  }
  void ZapObsolete(MmuWriteLocked& lock, MmuCost* cost);

  // Zaps up to `max_pages` of the pages that are listed because the guest
  // executes from them, the oldest first, so that huge pages can come in their
  // place (SPTE-53); those for which `keep` says so are only taken off the
  // list. Commits before it lets go of the lock and at the end. Returns how
  // many were zapped. REQUIRES: there is a list.
  uint64_t RecoverNxHugePages(MmuWriteLocked& lock, uint64_t max_pages,
                              absl::FunctionRef<bool(const ShadowPage&)> keep,
                              MmuCost* cost);

  // Zaps and commits all pages: for the VM's end. Invalid roots stay as long as
  // somebody has them.
  void ZapAll(const MmuWriteLocked& lock, MmuCost* cost);

 private:
  // Zaps the unsync pages below `page`; returns how many went.
  uint64_t ZapUnsyncBelow(const MmuWriteLocked& lock, ShadowPageState& page,
                          ZappedPages& zapped);

  const ShadowParts parts_;
  const Pages pages_;
  const TdpEnabled tdp_;
  NxHugePageList* const nx_huge_pages_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_ZAP_H_
