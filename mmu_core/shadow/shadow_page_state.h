// A shadow page: what it is, who owns it, and when it is freed.
//
// A page of the shadow MMU mirrors one of the guest's own tables (or half of a
// 4-byte one), or a part of a page that the guest maps with a larger size than
// the host can, or nothing (a passthrough page above the guest's root). It has
//
//   PageTable          the 4 KiB that the vCPU walks
//   ShadowPage         gfn and role, by which it is found (ROLE-01), and the
//                      way here: `state`
//   ShadowPageState    the rest; this file
//   GuestTranslations  of each entry the gfn and the rights that the guest
//                      gave; only where they do not follow from gfn and role
//
// The TDP MMU's pages have the first two only.
//
// Unlike these, a shadow page may hang at many entries at once, and at none: it
// is found through a hash (shadow/shadow_page_set.h), shared by whoever needs
// an equal one, and kept when nothing points at it any more. So it is not owned
// by a parent. Its states, all changed under mmu_lock in write mode:
//
//   active   in the hash and on the list of active pages. May have parents, and
//            may be a root: root_count is how many vCPUs' roots it is.
//     |                                                        |
//     | zapped, root_count == 0          zapped, root_count > 0 |
//     v                                                        v
//   zapped   on somebody's ZappedPages    invalid root   on no list; empty, but
//     |      <--- the last root is put ---  vCPUs may still walk it
//     | commit: TLBs flushed, off the hash
//     v
//   freed    after an RCU grace period: table, state and translations go back
//            to their pools
//
// A page that is not active is `invalid`: no lookup finds it (ROLE-10). The
// owner is thus shadow/shadow_pages.h from its creation to the commit, RCU from
// then on; whoever got a page from there may use it as long as it holds
// mmu_lock, or, without it, to look at its entries in an RCU read section.
//
// Where to read what: shadow_page_set.h who is there; shadow_links.h how pages
// hang together, and leafs; unsync_marks.h; shadow_zap.h how pages go;
// shadow_pages.h how they come, and how many there may be; shadow_audit.h what
// is always true of them.

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

// What one entry of a shadow page translates to. A value.
struct GuestTranslation {
  Gfn gfn;              // the first that the entry maps
  AccessRights access;  // what the guest's entries grant, down to this one

  friend bool operator==(const GuestTranslation&,
                         const GuestTranslation&) = default;
};

// The translations of a page whose entries stand for entries of a guest's
// table. An entry's is meaningful while its SPTE maps memory.
// Externally synchronised by mmu_lock: changed in write mode.
class GuestTranslations {
 public:
  GuestTranslation Get(int index) const {
    return {Gfn(words_[index] >> AccessRights::kBits),
            AccessRights(words_[index] & kAccessMask)};
  }
  void Set(int index, GuestTranslation t) {
    words_[index] = t.gfn.value() << AccessRights::kBits | t.access.bits();
  }

 private:
  static constexpr uint64_t kAccessMask = (1u << AccessRights::kBits) - 1;
  std::array<uint64_t, kEntriesPerTable> words_;
};

// Externally synchronised: all members are changed under mmu_lock in write mode
// and read under it in any mode, but for those that say otherwise.
struct ShadowPageState {
  // --- Constant from when the page is published until it is freed. ---

  ShadowPage* page = nullptr;
  GuestTranslations* translations = nullptr;  // null: none are needed

  // --- Links. ---

  // The non-leaf SPTEs that point here (SHD-11, SHD-16).
  RmapHead parents;
  ShadowPageState* hash_next = nullptr;
  // On the list of active pages, or on one of ZappedPages.
  ShadowPageState* newer = nullptr;
  ShadowPageState* older = nullptr;

  // --- Use. ---

  // Roots of vCPUs that this page is.
  int root_count = 0;
  // Writes to the guest's table since the page was last used (SHD-41).
  int write_flood_count = 0;
  // Not active any more. May be read without a lock, as a hint (LCK-03).
  std::atomic<bool> invalid{false};
  // The VM's generation when the page was made (SHD-24): one bit, constant.
  uint8_t generation = 0;

  // --- Out of step with the guest's table: shadow/unsync_marks.h. ---

  // The guest may write its table, and the entries may be stale (SHD-30). Level
  // 1 only. Set under mmu_lock in any mode and the lock of unsync_marks.h,
  // which guards the other two as well; may be read without a lock.
  std::atomic<bool> unsync{false};
  // Entries below which a page may be unsync: how many, and which.
  std::atomic<uint32_t> unsync_children{0};
  std::bitset<kEntriesPerTable> unsync_child_bitmap;

  // --- Questions. ---

  Gfn gfn() const { return page->gfn; }
  Level level() const { return page->role.level(); }
  bool IsInvalid() const { return invalid.load(std::memory_order_acquire); }
  // What a lookup compares: an invalid page's is equal to none in use.
  PageRole role() const {
    return IsInvalid() ? page->role.Invalidated() : page->role;
  }
  SpteSlot& EntryAt(int index) const { return page->table->entries[index]; }

  // Whether a page with `role` has an array of translations: its entries stand
  // for the guest's, and may be leafs (SHD-04, ROLE-33).
  static constexpr bool NeedsTranslations(PageRole role) {
    return role.HasGuestPtes() && role.level_number() <= ToInt(kMaxLeafLevel);
  }

  // What entry `index` translates to. Of a page without an array it follows
  // from gfn and role: a direct page is linear (SHD-06); any entry of a
  // passthrough page leads to the guest's root (ROLE-32).
  GuestTranslation TranslationOf(int index) const {
    if (translations != nullptr) return translations->Get(index);
    if (page->role.IsPassthrough()) return {page->gfn, page->role.access()};
    return {page->gfn + static_cast<uint64_t>(index) * PagesPer(level()),
            page->role.access()};
  }
  // REQUIRES: of a page without an array, that it is that already (checked).
  void SetTranslation(int index, GuestTranslation t) {
    if (translations != nullptr) return translations->Set(index, t);
    MMU_CHECK(t == TranslationOf(index));
  }
};

static_assert(sizeof(ShadowPageState) == 128, "two cache lines");

// The shadow page that `slot` is an entry of.
inline ShadowPageState& PageHolding(const SpteSlot& slot) {
  return *TablePool::DescriptorOf(TableHolding(slot))->state;
}
// The shadow page that a present non-leaf SPTE points at.
inline ShadowPageState& ChildAt(Spte spte) {
  return *TablePool::DescriptorOf(TableOf(spte))->state;
}

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_PAGE_STATE_H_
