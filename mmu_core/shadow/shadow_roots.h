// The roots of one vCPU for one paging mode: the current root and up to three
// previous roots, kept for reuse (SHD-54).
//
//   shadow tree       the vCPU walks from           pages counted as roots
//   4 or 5 levels     the root page                 that page
//   PAE (ROLE-20)     an array of four entries      up to four level-2 pages
//   PAE under a       scratch tables, then that     the same; the array and the
//   4-level host      array (ROLE-23)               scratch tables are no pages
//   none (ROLE-24)    the dummy root: empty         none
//
// A root without a page of its own (the last three) is not kept, and counts as
// obsolete when the vCPU is asked to drop obsolete roots.

#ifndef MMU_CORE_SHADOW_SHADOW_ROOTS_H_
#define MMU_CORE_SHADOW_SHADOW_ROOTS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

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

// Externally synchronised: belongs to the vCPU's thread. Functions without a
// witness must not be called with mmu_lock held.
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

  // --- The table that the vCPU walks from. ---

  // The table of the walk's first entry, which is IndexOf(address, level).
  // Null: there is no root; call Load.
  PageTable* table() const { return table_; }
  Level level() const { return level_; }
  // Unique in the process; a kept root that becomes current again has its old
  // id.
  uint64_t id() const { return id_; }
  // Whether the root, or one of the PAE roots, is obsolete, or there is no
  // root. A hint without mmu_lock, exact with it (PF-05).
  bool IsObsolete() const;
  // The shadow page at which the walk for `address` starts: the root page, or
  // the level-2 page below the PAE array; null if there is none. REQUIRES:
  // mmu_lock held, or an RCU section.
  ShadowPageState* TopPage(uint64_t address) const;

  // --- Loading and dropping roots. ---

  // Makes a root for `where` the current one, synchronised with the guest's
  // tables: the current one if it fits, a kept one, or a new one. Takes
  // mmu_lock for write. RESOURCE_EXHAUSTED: MMU_PAGES_EXHAUSTED (ENOMEM)
  // without memory, SHADOW_PAGES_EXHAUSTED (ENOSPC) at the limit (SHD-28); then
  // there is no root. REQUIRES: slots have rmaps (ShadowRootGate).
  absl::Status Load(GuestContext& guest, const GuestRoot& where, MmuCost* cost);
  // To be called when a CR3 (EPTP, nCR3) was loaded. True if a kept root for it
  // is now current, unchanged: the caller synchronises it unless the guest
  // asked not to flush and current_must_sync() is false. False: there is no
  // root now; the previous root is kept if possible (SHD-54).
  bool SwitchTo(const GuestContext& guest, const GuestRoot& where,
                MmuCost* cost);
  // Synchronises the unsync pages below the current root (SHD-32, SHD-37).
  void Sync(GuestContext& guest, MmuCost* cost);
  // Whether the guest has flushed the current root's translations while it was
  // a kept root (MustSync), and Sync was not called since.
  bool current_must_sync() const { return roots_[0].must_sync; }
  // The guest flushed all translations with this PCID: kept roots for it must
  // be synchronised before they are used again.
  void MustSync(uint16_t pcid);
  // Synchronises the leaf that translates `address`, in the current and the
  // kept roots (SHD-45), or only in those for `pcid`.
  void InvalidateAddress(GuestContext& guest, uint64_t address, MmuCost* cost) {
    InvalidateAddressOf(guest, std::nullopt, address, cost);
  }
  void InvalidateAddressOf(GuestContext& guest, std::optional<uint16_t> pcid,
                           uint64_t address, MmuCost* cost);

  // Calls ShadowPages::MakeAvailable, and drops the kept roots if that is
  // needed to make room.
  [[nodiscard]] bool MakeAvailable(const MmuWriteLocked& lock, MmuCost* cost);

  // Drop obsolete roots (kFreeObsoleteRoots), the roots for one table of the
  // guest (INVEPT of one EPTP), or all roots.
  void FreeObsolete(MmuCost* cost);
  void FreeOf(Gfn table, MmuCost* cost);
  void FreeAll(MmuCost* cost);

  // --- For the auditor. ---

  // A kept root that is not obsolete. A value.
  struct Kept {
    const PageTable& table;
    Level level;
    uint64_t id;
    uint16_t pcid;
  };
  std::vector<Kept> KeptRoots() const;
  // Calls fn(const ShadowPageState&) for each reference to a page as a root: of
  // the current root, its PAE roots and the kept roots.
  template <typename Fn>
  void ForEachReference(Fn fn) const {
    for (const Root& root : roots_) {
      if (root.page != nullptr) fn(*root.page);
    }
    for (const ShadowPageState* const page : pae_roots_) {
      if (page != nullptr) fn(*page);
    }
  }
  // Calls fn(const ShadowPage&) for each table that is no shadow page: the PAE
  // array, the scratch tables and those in stock.
  template <typename Fn>
  void ForEachOwnTable(Fn fn) const {
    for (const ShadowPage* const table : own_tables_) {
      if (table != nullptr) fn(*table);
    }
    spare_tables_.ForEach(fn);
  }

 private:
  // A root with a page, or an empty place.
  struct Root {
    ShadowPageState* page = nullptr;
    // The key of the lookup.
    Gfn table;
    uint16_t pcid = 0;
    PageRole role;
    uint64_t id = 0;
    bool must_sync = false;
  };
  // The pages of roots that this vCPU has dropped and must put.
  using Dropped = absl::InlinedVector<ShadowPageState*, 8>;

  absl::Status LoadNew(GuestContext& guest, const GuestRoot& where,
                       MmuCost* cost);
  // The part of Load under the lock. REQUIRES: MakeAvailable returned true.
  void LoadFrom(const MmuWriteLocked& lock, GuestContext& guest,
                const GuestRoot& where, MmuCost* cost);
  // Fills the array and, as needed, the scratch tables, which exist already.
  void LoadPaeRoots(const MmuWriteLocked& lock, GuestContext& guest,
                    const GuestRoot& where, MmuCost* cost);
  // The page for `gfn` under `role`, with one root reference more.
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

  // Calls fn(page) for the root pages of the current root.
  template <typename Fn>
  void ForEachCurrent(Fn fn) const;
  void InvalidateIn(const MmuWriteLocked& lock, GuestContext& guest,
                    ShadowPageState& top, uint64_t address, ZappedPages& zapped,
                    TlbFlushBatch& flush, MmuCost* cost);

  const Parts parts_;
  PageTable* table_ = nullptr;
  Level level_ = Level::k4K;
  uint64_t id_ = 0;
  uint16_t pcid_ = 0;  // of the current root
  // The current root, empty if it has no page; then the previous ones.
  std::array<Root, 1 + kPrevious> roots_;
  // The PAE roots of the current root, if it has them.
  std::array<ShadowPageState*, kPaeRoots> pae_roots_{};

  // The PAE array and, above it, scratch tables for levels 4 and 5. Kept once
  // made.
  TableCache spare_tables_;
  std::array<ShadowPage*, 3> own_tables_{};
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_ROOTS_H_
