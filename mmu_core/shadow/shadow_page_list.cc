#include "mmu_core/shadow/shadow_page_list.h"

#include <atomic>
#include <cstdint>
#include <vector>

#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"
#include "mmu_core/mmu/shadow_page_info.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/stats/labels.h"

namespace mmu {
namespace {

// Returns the number of entries and parents that the function has visited.
int64_t AddShadowPage(const MmuReadLocked& lock, const ShadowPageState& page,
                      std::vector<ShadowPageInfo>& pages) {
  ShadowPageInfo info = Describe(*page.page, MmuKind::kShadow);
  info.role = page.role();
  info.root_count = page.root_count;
  info.unsync = page.unsync.load(std::memory_order_relaxed);
  info.unsync_children = page.unsync_children.load(std::memory_order_relaxed);
  info.write_flood_count = page.write_flood_count;
  for (RmapIterator it = page.parents.Entries(lock); it.Valid(); it.Next()) {
    if (info.parent_count < ShadowPageInfo::kMaxParents) {
      info.parents[info.parent_count] = PlaceOf(it.sptep());
    }
    ++info.parent_count;
  }
  pages.push_back(info);
  return kEntriesPerTable + static_cast<int64_t>(info.parent_count);
}

}  // namespace

bool ListShadowMmuPages(MmuLock& lock, const ShadowPageSet& set,
                        ShadowPageLister& listing) {
  ShadowPagePosition& position = listing.position;
  MMU_CHECK(position.owner == MmuKind::kShadow &&
            listing.pages.capacity() >= listing.limit);
  while (position.major < ShadowPageSet::kChains) {
    if (listing.budget <= 0 || listing.full()) return false;
    int64_t looks = 0;
    MmuReadLocked held(lock, LockOp::kAge, /*cost=*/nullptr);
    while (position.major < ShadowPageSet::kChains && looks < kLooksPerPiece &&
           !listing.full()) {
      const ShadowPageState* page =
          set.FirstInChain(static_cast<int>(position.major));
      for (uint64_t i = 0; i < position.minor && page != nullptr; ++i) {
        page = page->hash_next;
      }
      for (; page != nullptr && looks < kLooksPerPiece && !listing.full();
           page = page->hash_next) {
        ++looks;
        ++position.minor;
        if (listing.filter.sync == ShadowPageFilter::Sync::kUnsync &&
            !page->unsync.load(std::memory_order_relaxed)) {
          continue;
        }
        if (!listing.Passes(page->gfn(), page->role())) continue;
        looks += AddShadowPage(held, *page, listing.pages);
      }
      if (page != nullptr) break;  // the chain is not finished
      ++looks;
      ++position.major;
      position.minor = 0;
    }
    listing.budget -= looks;
  }
  return true;
}

}  // namespace mmu
