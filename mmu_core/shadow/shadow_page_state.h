// A shadow page: its contents, its owner, and when it is freed.
//
// A page of the shadow MMU shadows one of the guest's own tables (or half of a
// 4-byte table), or a part of a page that the guest maps with a larger size
// than the host can, or nothing (a passthrough page above the guest's root). It
// has
//
//   PageTable          the 4 KiB that the vCPU walks
//   ShadowPage         gfn and role, by which it is found (ROLE-01), and the
//                      pointer to its state: `state`
//   ShadowPageState    all other state; this file
//   GuestTranslations  for each entry the gfn and the rights that the guest
//                      gave; only if they do not follow from gfn and role
//
// The TDP MMU's pages have the first two only.
//
// Unlike those, a shadow page may have many parent entries at once, or none. It
// is found through a hash (shadow/shadow_page_set.h), shared by all users of an
// equal page, and kept when no entry points at it any more. So no parent owns
// it. Its states, all changed under mmu_lock in write mode:
//
//   active   in the hash and on the list of active pages. May have parents, and
//            may be a root: root_count is how many vCPUs' roots it is.
//     |                                                        |
//     | zapped, root_count == 0          zapped, root_count > 0 |
//     v                                                        v
//   zapped   on a ZappedPages list          invalid root   on no list; empty,
//     |      <--- the last root is put ---  but vCPUs may still walk it
//     | commit: TLBs flushed, off the hash
//     v
//   freed    after an RCU grace period: table, state and translations go back
//            to their pools
//
// A page that is not active is `invalid`: no lookup finds it (ROLE-10). So
// shadow/shadow_pages.h owns a page from its creation to the commit, and RCU
// from then on. A thread that got a page from there may use it while it holds
// mmu_lock; without mmu_lock it may only read the page's entries, in an RCU
// read section.
//
// See also: shadow_page_set.h, the set of pages; shadow_links.h, links between
// pages and leafs; unsync_marks.h; shadow_zap.h, zapping pages; shadow_pages.h,
// making pages and their limit; shadow_audit.h, the invariants.

#ifndef MMU_CORE_SHADOW_SHADOW_PAGE_STATE_H_
#define MMU_CORE_SHADOW_SHADOW_PAGE_STATE_H_

#include <array>
#include <atomic>
#include <bitset>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/rmap/rmap.h"

namespace mmu {

// The translation by one entry of a shadow page. A value.
struct GuestTranslation {
  Gfn gfn;              // the first gfn that the entry maps
  AccessRights access;  // rights of the guest's entries down to this one

  friend bool operator==(const GuestTranslation&,
                         const GuestTranslation&) = default;
};

// The translations of a page whose entries shadow entries of a guest's table.
// An entry's translation is meaningful while its SPTE maps memory. Changed
// under mmu_lock in write mode. A vCPU's walk reads without the lock: the value
// that it gets is that of the SPTE that it has read if the SPTE is still the
// same afterwards. For the entry is emptied before its translation becomes one
// for another gfn, and these two steps are seen in their order.
class GuestTranslations {
 public:
  GuestTranslation Get(int index) const {
    // atomic_ref has no const form; nothing is written here.
    const uint64_t word =
        std::atomic_ref<uint64_t>(const_cast<uint64_t&>(words_[index]))
            .load(std::memory_order_acquire);
    return {Gfn(word >> AccessRights::kBits), AccessRights(word & kAccessMask)};
  }
  void Set(int index, GuestTranslation t) {
    std::atomic_ref<uint64_t>(words_[index])
        .store(t.gfn.value() << AccessRights::kBits | t.access.bits(),
               std::memory_order_release);
  }

 private:
  static constexpr uint64_t kAccessMask = (1u << AccessRights::kBits) - 1;
  std::array<uint64_t, kEntriesPerTable> words_;
};

// Externally synchronised: all members are changed under mmu_lock in write mode
// and read under it in any mode, except where a comment says otherwise.
struct ShadowPageState {
  // --- Constant from the page's publication until it is freed. ---

  ShadowPage* page = nullptr;
  GuestTranslations* translations = nullptr;  // null: none are needed

  // --- Links. ---

  // The non-leaf SPTEs that point here (SHD-11, SHD-16).
  RmapHead parents;
  ShadowPageState* hash_next = nullptr;
  // The links in the list of active pages, or in a ZappedPages list.
  ShadowPageState* newer = nullptr;
  ShadowPageState* older = nullptr;

  // --- Use. ---

  // The number of vCPUs' roots that this page is.
  int root_count = 0;
  // Writes to the guest's table since the page was last used (SHD-41).
  int write_flood_count = 0;
  // Not active any more. May be read without a lock as a hint (LCK-03).
  std::atomic<bool> invalid{false};
  // The VM's generation when the page was made (SHD-24): one bit, constant.
  uint8_t generation = 0;

  // --- Unsync state: shadow/unsync_marks.h. ---

  // The guest may write its table, and the entries may be stale (SHD-30). Level
  // 1 only. Set under mmu_lock in any mode and the lock of unsync_marks.h,
  // which also guards the next two members. May be read without a lock.
  std::atomic<bool> unsync{false};
  // The entries below which a page may be unsync: their number, and a bit for
  // each.
  std::atomic<uint32_t> unsync_children{0};
  std::bitset<kEntriesPerTable> unsync_child_bitmap;

  // --- Questions. ---

  Gfn gfn() const { return page->gfn; }
  Level level() const { return page->role.level(); }
  bool IsInvalid() const { return invalid.load(std::memory_order_acquire); }
  // The role that a lookup compares; an invalid page's role equals none in use.
  PageRole role() const {
    return IsInvalid() ? page->role.Invalidated() : page->role;
  }
  SpteSlot& EntryAt(int index) const { return page->table->entries[index]; }

  // Whether a page with `role` has an array of translations: its entries shadow
  // the guest's, and may be leafs (SHD-04, ROLE-33).
  static constexpr bool NeedsTranslations(PageRole role) {
    return role.HasGuestPtes() && role.level_number() <= ToInt(kMaxLeafLevel);
  }

  // The translation of entry `index`. Without an array it follows from gfn and
  // role: a direct page is linear (SHD-06); any entry of a passthrough page
  // leads to the guest's root (ROLE-32).
  GuestTranslation TranslationOf(int index) const {
    if (translations != nullptr) return translations->Get(index);
    if (page->role.IsPassthrough()) return {page->gfn, page->role.access()};
    return {page->gfn + static_cast<uint64_t>(index) * PagesPer(level()),
            page->role.access()};
  }
  // REQUIRES: for a page without an array, TranslationOf(index) is `t` already
  // (checked).
  void SetTranslation(int index, GuestTranslation t) {
    if (translations != nullptr) return translations->Set(index, t);
    MMU_CHECK(t == TranslationOf(index));
  }
};

static_assert(sizeof(ShadowPageState) == 128, "two cache lines");

// The shadow page that contains `slot`.
inline ShadowPageState& PageHolding(const SpteSlot& slot) {
  return *TablePool::DescriptorOf(TableHolding(slot))->state;
}
// The shadow page that a present non-leaf SPTE points at.
inline ShadowPageState& ChildAt(Spte spte) {
  return *TablePool::DescriptorOf(TableOf(spte))->state;
}

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_PAGE_STATE_H_
