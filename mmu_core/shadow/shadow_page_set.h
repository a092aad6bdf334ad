// The shadow pages of a VM: a hash to find them by gfn, and a list of the
// active ones, newest first (SHD-01, SHD-24).
//
//   hash    4096 chains of all pages that were not freed yet, including the
//           invalid ones: a loop over a chain may zap any page that it meets.
//   active  the pages that are not invalid. Zapping the oldest pages, or all of
//           an older generation, begins at its end; so a page keeps its place.
//
// This class does not deal with links between pages, or with the guest.

#ifndef MMU_CORE_SHADOW_SHADOW_PAGE_SET_H_
#define MMU_CORE_SHADOW_SHADOW_PAGE_SET_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Pages in the order in which they were added, linked through themselves.
// Externally synchronised.
class ShadowPageList {
 public:
  ShadowPageList() = default;
  ~ShadowPageList() { MMU_CHECK(empty()); }
  ShadowPageList(const ShadowPageList&) = delete;
  ShadowPageList& operator=(const ShadowPageList&) = delete;

  bool empty() const { return newest_ == nullptr; }
  ShadowPageState* newest() const { return newest_; }
  ShadowPageState* oldest() const { return oldest_; }
  // REQUIRES: `page` is on no list.
  void Add(ShadowPageState& page);
  // REQUIRES: `page` is on this list.
  void Remove(ShadowPageState& page);

 private:
  ShadowPageState* newest_ = nullptr;
  ShadowPageState* oldest_ = nullptr;
};

// Externally synchronised: changed under mmu_lock in write mode, read under it
// in any mode.
class ShadowPageSet {
 public:
  static constexpr int kChains = 4096;

  ShadowPageSet() = default;
  // REQUIRES: there are no pages.
  ~ShadowPageSet();
  ShadowPageSet(const ShadowPageSet&) = delete;
  ShadowPageSet& operator=(const ShadowPageSet&) = delete;

  static int ChainOf(Gfn gfn);
  // The first page of `gfn`'s chain. The pages of a chain have different gfns;
  // hash_next is the next page.
  ShadowPageState* FirstInChain(Gfn gfn) const { return chains_[ChainOf(gfn)]; }
  // The first page of chain `chain` < kChains.
  ShadowPageState* FirstInChain(int chain) const { return chains_[chain]; }

  const ShadowPageList& active() const { return active_; }

  // Whether the page is of an older generation or not active, and so must not
  // be used any more (SHD-24). Without mmu_lock the answer is a hint; the page
  // must stay allocated.
  bool IsObsolete(const ShadowPageState& page) const {
    return page.IsInvalid() ||
           page.generation != generation_.load(std::memory_order_acquire);
  }
  // Makes all pages obsolete. REQUIRES: no active page is obsolete yet
  // (checked), since there are only two generations.
  void StartGeneration(const MmuWriteLocked& lock);

  // Inserts a page, whose gfn and role are set, and stamps it with the
  // generation.
  void Insert(const MmuWriteLocked& lock, ShadowPageState& page);
  // Takes an active page off the list and makes it invalid; it stays in the
  // hash.
  void Deactivate(const MmuWriteLocked& lock, ShadowPageState& page);
  // Takes an invalid page off the hash.
  void Remove(const MmuWriteLocked& lock, ShadowPageState& page);

  // Calls `fn(page)` for each page that shadows the guest's table at `gfn` and
  // is not obsolete (SHD-07, ROLE-34), until `fn` returns false. `fn` may zap
  // pages, but neither commit nor insert. `lock` is a witness of any mode.
  template <typename Lock, typename Fn>
  void ForEachWithGuestPtes(const Lock& lock, Gfn gfn, Fn fn) const {
    MMU_DCHECK(lock.held());
    for (ShadowPageState* page = FirstInChain(gfn); page != nullptr;
         page = page->hash_next) {
      if (page->gfn() != gfn || IsObsolete(*page)) continue;
      if (!page->page->role.HasGuestPtes()) continue;
      if (!fn(*page)) return;
    }
  }

 private:
  std::atomic<uint8_t> generation_{0};  // written under mmu_lock
  ShadowPageList active_;
  std::array<ShadowPageState*, kChains> chains_{};
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_PAGE_SET_H_
