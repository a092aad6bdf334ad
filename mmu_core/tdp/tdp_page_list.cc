#include "mmu_core/tdp/tdp_page_list.h"

#include <algorithm>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/mmu/shadow_page_info.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

// Above every gfn that any table maps.
constexpr Gfn kEndOfGfns{uint64_t{1} << 45};

// One pass that lists the TDP MMU's tables.
class TdpLister {
 public:
  explicit TdpLister(ShadowPageLister& listing) : listing_(listing) {}

  // Lists a piece of `root` from the position on. True at the root's end.
  // REQUIRES: an RCU read section.
  bool ListPiece(const TdpRoot& root) {
    const int64_t end_of_piece = listing_.budget - kLooksPerPiece;
    if (listing_.position.major != root.id()) {
      listing_.position = {.owner = MmuKind::kTdp, .major = root.id()};
    }
    if (listing_.position.level > ToInt(root.level())) {
      listing_.position.level = ToInt(root.level());
      if (listing_.Passes(Gfn(0), root.role())) {
        Add(*TablePool::DescriptorOf(root.table()));
        listing_.pages.back().root_count = 1;
        if (root.IsInvalid()) {
          listing_.pages.back().role = listing_.pages.back().role.Invalidated();
        }
      }
    }
    if (listing_.filter.level >= ToInt(root.level())) return true;
    // A table of level n is linked from an entry of level n + 1.
    const Level min_level = listing_.filter.level == 0
                                ? Level::k2M
                                : ParentOf(listing_.filter.level);
    GfnRange range{Gfn(listing_.position.minor), kEndOfGfns};
    if (!listing_.filter.gfns.empty()) {
      range.start = std::max(range.start, listing_.filter.gfns.start);
      range.end = std::min(range.end, listing_.filter.gfns.end);
    }
    if (range.empty()) return true;
    for (TdpCursor c(root.table(), root.level(), range, min_level); c.Valid();
         c.Next()) {
      if (!IsAfterPosition(c)) continue;
      if (listing_.full() || listing_.budget <= end_of_piece) return false;
      --listing_.budget;
      listing_.position.minor = c.gfn().value();
      listing_.position.level = ToInt(c.level()) - 1;
      if (!c.IsPresentTable()) continue;
      const ShadowPage& page = *TablePool::DescriptorOf(TableOf(c.old_spte()));
      if (!listing_.Passes(page.gfn, page.role)) continue;
      Add(page);
      listing_.pages.back().parent_count = 1;
      listing_.pages.back().parents[0] = PlaceOf(c.slot());
    }
    return true;
  }

 private:
  static Level ParentOf(int level) { return static_cast<Level>(level + 1); }

  // Whether the cursor's entry comes after the position: a table comes before
  // the tables below it.
  bool IsAfterPosition(const TdpCursor& c) const {
    const uint64_t gfn = c.gfn().value();
    return gfn > listing_.position.minor ||
           (gfn == listing_.position.minor &&
            ToInt(c.level()) - 1 < listing_.position.level);
  }

  void Add(const ShadowPage& page) {
    listing_.pages.push_back(Describe(page, MmuKind::kTdp));
    listing_.budget -= kEntriesPerTable;
  }

  ShadowPageLister& listing_;
};

// The root with the lowest id of at least `id`, or null. REQUIRES: an RCU read
// section.
const TdpRoot* RootFrom(const RootList& roots, uint64_t id) {
  const TdpRoot* found = nullptr;
  for (const TdpRoot* root =
           roots.FirstRcu(RootFilter::kAll, RootList::kAnyAsId);
       root != nullptr;
       root = roots.NextRcu(root, RootFilter::kAll, RootList::kAnyAsId)) {
    if (root->id() >= id && (found == nullptr || root->id() < found->id())) {
      found = root;
    }
  }
  return found;
}

}  // namespace

bool ListTdpPages(const RootList& roots, ShadowPageLister& listing) {
  MMU_CHECK(listing.position.owner == MmuKind::kTdp &&
            listing.pages.capacity() >= listing.limit);
  if (listing.filter.sync == ShadowPageFilter::Sync::kUnsync) return true;
  TdpLister lister(listing);
  while (listing.budget > 0 && !listing.full()) {
    RcuReadGuard rcu;
    const TdpRoot* root = RootFrom(roots, listing.position.major);
    if (root == nullptr) return true;
    --listing.budget;
    if (lister.ListPiece(*root)) {
      listing.position = {.owner = MmuKind::kTdp, .major = root->id() + 1};
    }
  }
  return false;
}

}  // namespace mmu
