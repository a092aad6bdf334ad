// The roots of one vCPU for one way of paging: the one it runs on and, ready to
// be run on again, up to three before it (SHD-54).
//
//   shadow tree       the vCPU walks from           roots that are counted
//   4 or 5 levels     the root page                 that page
//   PAE (ROLE-20)     an array of four entries      up to four level-2 pages
//   PAE under a       scratch tables, then that     the same; the array and the
//   4-level host      array (ROLE-23)               scratch tables are no pages
//   none (ROLE-24)    the dummy root: empty         none
//
// A root without a page of its own, the last three, is not kept for later, and
// counts as obsolete when the vCPU is asked to let go of obsolete roots.

#ifndef MMU_CORE_SHADOW_SHADOW_ROOTS_H_
#define MMU_CORE_SHADOW_SHADOW_ROOTS_H_

#include <array>
#include <cstdint>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/pae_roots.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/shadow/guest_context.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/shadow/shadow_sync.h"
#include "mmu_core/shadow/shadow_zap.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {

// Externally synchronised: belongs to the vCPU's thread. No function is to be
// called with mmu_lock held unless it takes a witness.
class ShadowRoots {
 public:
  static constexpr int kPrevious = 3;

  struct Parts {
    const ShadowParts& shadow;
    MmuLock& mmu_lock;
    ShadowPages& pages;
    ShadowSync& sync;
    TablePool& tables;  // for PAE arrays and scratch tables
  };
  explicit ShadowRoots(const Parts& parts);
  // REQUIRES: FreeAll was called.
  ~ShadowRoots();
  ShadowRoots(const ShadowRoots&) = delete;
  ShadowRoots& operator=(const ShadowRoots&) = delete;

  // --- Where the vCPU walks. ---

  // Null: there is no root, Load one. What is walked from: entry
  // IndexOf(address, level) of `table` is the first.
  PageTable* table() const { return table_; }
  Level level() const { return level_; }
  // Never used twice in a process; of a root that comes back from the cache the
  // one that it had.
  uint64_t id() const { return id_; }
  // The root, or one of the PAE roots, went out of use; or there is none. A
  // hint without mmu_lock, exact with it (PF-05).
  bool IsObsolete() const;
  // The shadow page that the walk for `address` starts in: the root page, or
  // the level-2 page below the PAE array; null where there is none. REQUIRES:
  // mmu_lock held, or an RCU section.
  ShadowPageState* TopPage(uint64_t address) const;

  // --- Getting and losing roots. ---

  // Makes a root for `where` the current one: the one that is, a kept one, or a
  // new one, in step with the guest's tables. Takes mmu_lock for write.
  // RESOURCE_EXHAUSTED: MMU_PAGES_EXHAUSTED (ENOMEM) without memory,
  // SHADOW_PAGES_EXHAUSTED (ENOSPC) at the limit (SHD-28); there is no root
  // then. REQUIRES: slots have rmaps (ShadowRootGate).
  absl::Status Load(GuestContext& guest, const GuestRoot& where, MmuCost* cost);
  // A CR3 (EPTP, nCR3) was loaded. True if a kept root for it is current now,
  // as it was left: the caller syncs unless the guest asked not to flush.
  // False: there is no root now; the one before is kept if it can be (SHD-54).
  bool SwitchTo(const GuestContext& guest, const GuestRoot& where,
                MmuCost* cost);
  // Brings what hangs below the current root in step, if anything is not
  // (SHD-32, SHD-37).
  void Sync(GuestContext& guest, MmuCost* cost);
  // Brings the leaf that translates `address` in step, in the current and the
  // kept roots (SHD-45).
  void InvalidateAddress(GuestContext& guest, uint64_t address, MmuCost* cost);

  // ShadowPages::MakeAvailable, for which the kept roots go if need be: what is
  // kept for later makes room for what is needed now.
  [[nodiscard]] bool MakeAvailable(const MmuWriteLocked& lock, MmuCost* cost);

  // Lets go of roots that are out of use (kFreeObsoleteRoots); of all.
  void FreeObsolete(MmuCost* cost);
  void FreeAll(MmuCost* cost);

 private:
  // A root that is a page, or an empty place.
  struct Root {
    ShadowPageState* page = nullptr;
    // What it is found by.
    Gfn table;
    PageRole role;
    uint64_t id = 0;
  };
  // The pages of roots that this vCPU has no more, to be put.
  using Dropped = absl::InlinedVector<ShadowPageState*, 8>;

  absl::Status LoadNew(GuestContext& guest, const GuestRoot& where,
                       MmuCost* cost);
  // What of it needs the lock. REQUIRES: MakeAvailable said yes.
  void LoadFrom(const MmuWriteLocked& lock, GuestContext& guest,
                const GuestRoot& where, MmuCost* cost);
  // Fills the array and, as needed, the scratch tables; they are there.
  void LoadPaeRoots(const MmuWriteLocked& lock, GuestContext& guest,
                    const GuestRoot& where, MmuCost* cost);
  // A page with one root more, for whoever asked.
  ShadowPageState& GetRoot(const MmuWriteLocked& lock, GuestContext& guest,
                           Gfn gfn, PageRole role, MmuCost* cost);
  absl::Status AllocateOwnTables(int count);

  bool IsObsolete(const ShadowPageState& page) const {
    return parts_.pages.set().IsObsolete(page);
  }
  void MakeCurrent(const Root& root);
  // There is no current root afterwards.
  void DropCurrent(Dropped& dropped);
  static void Drop(Root& root, Dropped& dropped);
  void Put(const Dropped& dropped, MmuCost* cost);

  // Calls fn(page) for the pages that the current root consists of.
  template <typename Fn>
  void ForEachCurrent(Fn fn) const;
  void InvalidateIn(const MmuWriteLocked& lock, GuestContext& guest,
                    ShadowPageState& top, uint64_t address, ZappedPages& zapped,
                    TlbFlushBatch& flush, MmuCost* cost);

  const Parts parts_;
  PageTable* table_ = nullptr;
  Level level_ = Level::k4K;
  uint64_t id_ = 0;
  // The current one, empty if it is no page; then those before it.
  std::array<Root, 1 + kPrevious> roots_;
  // Of the current one, if it has them.
  std::array<ShadowPageState*, kPaeRoots> pae_roots_{};

  // The PAE array and, above it, scratch tables for levels 4 and 5: once made,
  // kept.
  TableCache spare_tables_;
  std::array<ShadowPage*, 3> own_tables_{};
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_ROOTS_H_
