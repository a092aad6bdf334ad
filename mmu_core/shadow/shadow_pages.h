// Making the shadow pages of a VM, and limiting their number.
//
// A vCPU that needs a table for a gfn under a role gets it from this class.
// There may be one already, made for another vCPU, another entry or at an
// earlier time. Otherwise an empty page is made from the caller's caches, and
// from then on the guest's table that it shadows is guarded against unnoticed
// writes. Before a caller asks for pages it makes room (MakeAvailable): if
// there are too many pages, the oldest are zapped.
//
//   under mmu_lock in write mode:
//     if (!pages.MakeAvailable(lock, cost)) -> ENOSPC (SHD-28)
//     pages.GetOrCreate(lock, gfn, role, caches, sync, cost)
//     pages.links().LinkChild(...), AddLeaf(...)
//
// A page and its states: shadow/shadow_page_state.h. The parts of this class
// can be used on their own: links() for the entries, zap() for zapping pages,
// set() to find pages by gfn, unsync() and tracking() for the guest's writes.

#ifndef MMU_CORE_SHADOW_SHADOW_PAGES_H_
#define MMU_CORE_SHADOW_SHADOW_PAGES_H_

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "mmu_core/base/address.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/shadow/shadow_caches.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_page_set.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/shadow/shadow_zap.h"
#include "mmu_core/shadow/unsync_marks.h"
#include "mmu_core/shadow/write_tracking.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Result of synchronising an unsync page with the guest's table (SHD-33).
enum class PageSync : uint8_t { kFailed, kUnchanged, kNeedsFlush };

// Synchronises a page for GetOrCreate: the page stays unsync, and the caller
// flushes. May zap pages, but not this one.
using SyncPageFn = absl::FunctionRef<PageSync(ShadowPageState& page)>;

// One per VM. Its hash takes 32 KiB, so only a VM that needs shadow pages has
// it (SHD-13). Thread-safe under the locks that the witnesses name.
class ShadowPages {
 public:
  // If fewer pages than this are available before a fault, room is made
  // (SHD-26). A split requires one more (SHD-73).
  static constexpr uint64_t kMinFree = 5;
  // The number of available pages after making room.
  static constexpr uint64_t kRefill = 25;
  // The minimum limit.
  static constexpr uint64_t kMinLimit = 64;

  // `nx_huge_pages` as for ShadowZap.
  ShadowPages(const ShadowParts& parts, TdpEnabled tdp,
              NxHugePageList* nx_huge_pages = nullptr);
  // REQUIRES: zap().ZapAll was called, and all roots were put.
  ~ShadowPages() = default;
  ShadowPages(const ShadowPages&) = delete;
  ShadowPages& operator=(const ShadowPages&) = delete;

  // --- Pages. ---

  struct Result {
    ShadowPageState& page;
    bool created;  // a new page: empty, without a parent
  };
  // The page for `gfn` under `role` (SHD-02..04). An unsync page is first
  // synchronised by `sync`; if that fails it is zapped and another page made.
  // If `role` is above level 1, unsync pages of the gfn are zapped: the guest
  // has turned a page table into a page directory. May flush. REQUIRES:
  // `caches` hold what one page needs (checked); for a page with guest PTEs,
  // the gfn is in a slot (checked).
  Result GetOrCreate(const MmuWriteLocked& lock, Gfn gfn, PageRole role,
                     ShadowCaches& caches, SyncPageFn sync, MmuCost* cost);
  // The same for a page without guest PTEs, which is never unsync.
  Result GetOrCreate(const MmuWriteLocked& lock, Gfn gfn, PageRole role,
                     ShadowCaches& caches, MmuCost* cost);

  // --- Limits. ---

  // Pages in use; invalid roots count until their last user leaves (SHD-05).
  // This and the following numbers are exact under mmu_lock in any mode.
  uint64_t in_use() const {
    return ShadowCounters::Get(parts_.counters.shadow.mmu_shadow_pages);
  }
  uint64_t limit() const { return limit_.load(std::memory_order_relaxed); }
  // The number of pages that may still be made (SHD-25).
  uint64_t Available() const { return limit() - std::min(limit(), in_use()); }

  // To be called before a fault or the load of a root needs pages. Zaps the
  // oldest pages if fewer than kMinFree are available. False if none is
  // available even then: ENOSPC (SHD-28). The limit is soft: a fault that needs
  // more pages than are available takes them.
  [[nodiscard]] bool MakeAvailable(const MmuWriteLocked& lock, MmuCost* cost);

  // The error for a caller that MakeAvailable refused: RESOURCE_EXHAUSTED
  // SHADOW_PAGES_EXHAUSTED (ENOSPC). Allocates: not under mmu_lock (LCK-01).
  absl::Status Exhausted() const;

  // INVALID_ARGUMENT (EINVAL) if this limit is not allowed (SHD-29).
  static absl::Status CheckLimit(uint64_t pages);
  // Sets an explicit limit; from now on the slots' size does not matter. Zaps
  // pages above it, and ends with a higher limit if not enough pages can be
  // zapped (SHD-29). Releases the lock in between. REQUIRES: `pages` passes
  // CheckLimit; slots_lock.
  void SetLimit(MmuWriteLocked& lock, uint64_t pages, MmuCost* cost);
  // Sets the limit after a slot was made or deleted: all slots together now
  // have `slot_pages` pages (SLOT-30). No effect after SetLimit. Otherwise like
  // SetLimit.
  void SetLimitForSlots(MmuWriteLocked& lock, uint64_t slot_pages,
                        MmuCost* cost);
  // A fiftieth of the slots' pages.
  static constexpr uint64_t LimitForSlots(uint64_t slot_pages) {
    return std::max(slot_pages / 50, kMinLimit);
  }

  // --- Parts. ---

  const ShadowPageSet& set() const { return set_; }
  ShadowLinks& links() { return links_; }
  ShadowZap& zap() { return zap_; }
  UnsyncMarks& unsync() { return unsync_; }
  WriteTracking& tracking() { return tracking_; }
  const WriteTracking& tracking() const { return tracking_; }

 private:
  // Null if there is no such page.
  ShadowPageState* Find(const MmuWriteLocked& lock, Gfn gfn, PageRole role,
                        SyncPageFn sync, MmuCost* cost);
  ShadowPageState& Create(const MmuWriteLocked& lock, Gfn gfn, PageRole role,
                          ShadowCaches& caches, MmuCost* cost);
  void ChangeLimit(MmuWriteLocked& lock, uint64_t pages, MmuCost* cost);

  const ShadowParts parts_;
  // Each uses those above it.
  UnsyncMarks unsync_;
  ShadowLinks links_;
  WriteTracking tracking_;
  ShadowPageSet set_;
  ShadowZap zap_;
  // Written under mmu_lock in write mode.
  std::atomic<uint64_t> limit_{kMinLimit};
  bool limit_was_asked_for_ = false;  // under mmu_lock
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_PAGES_H_
