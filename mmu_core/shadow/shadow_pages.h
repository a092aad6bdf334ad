// The shadow pages of a VM: how they come, and how many there may be.
//
// A vCPU that needs a table for a gfn under a role asks for it here. There may
// be one already, made for another vCPU, another entry or an earlier time; else
// one is made from the caller's caches, empty, and the guest's table behind it
// is from then on guarded against unnoticed writes. Before a caller asks for
// pages it sees to it that there is room (MakeAvailable): too many pages, and
// the oldest go.
//
//   under mmu_lock in write mode:
//     if (!pages.MakeAvailable(lock, cost)) -> ENOSPC (SHD-28)
//     pages.GetOrCreate(lock, gfn, role, caches, sync, cost)
//     pages.links().LinkChild(...), AddLeaf(...)
//
// What a page is, and its states: shadow/shadow_page_state.h. The parts that
// this class is made of can be used by themselves: links() for what is in the
// entries, zap() for how pages go, set() to find them by gfn, unsync() and
// tracking() for the guest's writes.

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

// What bringing an unsync page in step with the guest's table came to (SHD-33).
enum class PageSync : uint8_t { kFailed, kUnchanged, kNeedsFlush };

// Brings a page in step, for GetOrCreate: it stays unsync, and what is to be
// flushed is left to the caller. May zap pages, but not this one.
using SyncPageFn = absl::FunctionRef<PageSync(ShadowPageState& page)>;

// One per VM; its hash takes 32 KiB, so it is for a VM that needs shadow pages
// (SHD-13). Thread-safe with the witnesses named.
class ShadowPages {
 public:
  // What must be available before a fault, or it makes room (SHD-26); a split
  // wants one more (SHD-73).
  static constexpr uint64_t kMinFree = 5;
  // What is available then.
  static constexpr uint64_t kRefill = 25;
  // The smallest limit.
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
    bool created;  // it is empty, and has no parent
  };
  // The page for `gfn` under `role` (SHD-02..04). One that is unsync is brought
  // in step by `sync` first; if that fails it is zapped and another made. If
  // `role` is above level 1, unsync pages of the gfn are zapped: the guest has
  // turned a page table into a page directory. May flush. REQUIRES: `caches`
  // hold what one page needs (checked); of a page with guest PTEs, the gfn is
  // in a slot (checked).
  Result GetOrCreate(const MmuWriteLocked& lock, Gfn gfn, PageRole role,
                     ShadowCaches& caches, SyncPageFn sync, MmuCost* cost);
  // The same for a page without guest PTEs, which is never unsync.
  Result GetOrCreate(const MmuWriteLocked& lock, Gfn gfn, PageRole role,
                     ShadowCaches& caches, MmuCost* cost);

  // --- Limits. ---

  // Pages in use; invalid roots count until their last user leaves (SHD-05).
  // The numbers are exact under mmu_lock in any mode.
  uint64_t in_use() const {
    return ShadowCounters::Get(parts_.counters.shadow.mmu_shadow_pages);
  }
  uint64_t limit() const { return limit_.load(std::memory_order_relaxed); }
  // How many more there may be (SHD-25).
  uint64_t Available() const { return limit() - std::min(limit(), in_use()); }

  // To be called before a fault, or the load of a root, needs pages. Zaps the
  // oldest if fewer than kMinFree are available. False if none is available
  // even so: ENOSPC (SHD-28). The limit is soft: a fault that needs more than
  // there are takes them.
  [[nodiscard]] bool MakeAvailable(const MmuWriteLocked& lock, MmuCost* cost);

  // What to tell whoever MakeAvailable refused: RESOURCE_EXHAUSTED
  // SHADOW_PAGES_EXHAUSTED (ENOSPC). Allocates: not under mmu_lock (LCK-01).
  absl::Status Exhausted() const;

  // INVALID_ARGUMENT (EINVAL) if nobody may ask for this limit (SHD-29).
  static absl::Status CheckLimit(uint64_t pages);
  // The limit that somebody asked for; from now on the slots do not matter.
  // Zaps what is above it, and ends with a higher limit if that many pages
  // cannot go (SHD-29). Lets others have the lock in between. REQUIRES: passes
  // CheckLimit; slots_lock.
  void SetLimit(MmuWriteLocked& lock, uint64_t pages, MmuCost* cost);
  // A slot was made or deleted: all have `slot_pages` pages now (SLOT-30). No
  // effect after SetLimit. The same otherwise.
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

 private:
  // Null if there is none.
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
