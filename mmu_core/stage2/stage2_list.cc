#include "mmu_core/stage2/stage2_list.h"

#include <algorithm>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/mmu/shadow_page_info.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/stage2/s2_descriptor.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

// The position of a listing: `minor` is the gfn and `level` the level of the
// table that was looked at last; `major` is 1 once all tables were.
template <TableGeometry G>
class Stage2Lister {
 public:
  Stage2Lister(const Stage2State<G>& state, ShadowPageLister& listing)
      : state_(state), listing_(listing) {}

  // Lists a piece. True at the end. REQUIRES: an RCU read section.
  bool ListPiece() {
    const int64_t end_of_piece = listing_.budget - kLooksPerPiece;
    const S2Shape& shape = state_.options.shape;
    GfnRange range = {Gfn(listing_.position.minor),
                      Gfn(uint64_t{1} << (shape.ipa_bits - kPageShift))};
    if (!listing_.filter.gfns.empty()) {
      range.start = std::max(range.start, listing_.filter.gfns.start);
      range.end = std::min(range.end, listing_.filter.gfns.end);
    }
    if (range.empty()) return true;
    const uint64_t per_table =
        PagesPer<G>(shape.start_level) * G::kEntriesPerTable;
    for (S2Cursor<G> c = state_.CursorOver(range, Level{2}); c.Valid();
         c.Next()) {
      // Before the first entry of a table of the root comes that table.
      const uint64_t within = c.gfn().value() % per_table;
      if (c.level() == shape.start_level &&
          (within == 0 || c.gfn() <= range.start)) {
        const Gfn first(c.gfn().value() - within);
        if (!Visit(first, shape.start_level, end_of_piece)) return false;
        if (visited_) {
          AddTable(state_.root->tables()[first.value() / per_table],
                   shape.start_level, first);
        }
      }
      if (!Visit(c.gfn(), ChildOf(c.level()), end_of_piece)) return false;
      if (!visited_ || !c.IsPresentTable()) continue;
      const S2Page<G>& page = *S2Updater<G>::PageBelow(c.old_spte());
      if (!AddTable(*page.table, page.level, page.gfn)) continue;
      ShadowPageInfo& info = listing_.pages.back();
      info.root_count = 0;
      info.parent_count = 1;
      info.parents[0] = PlaceOf(c.slot());
    }
    return true;
  }

 private:
  // Moves the position to the table of `level` at `gfn`, and sets visited_
  // unless the position is there or behind it already. False: the piece is
  // over.
  bool Visit(Gfn gfn, Level level, int64_t end_of_piece) {
    ShadowPagePosition& at = listing_.position;
    visited_ = gfn.value() > at.minor ||
               (gfn.value() == at.minor && ToInt(level) < at.level);
    if (!visited_) return true;
    if (listing_.full() || listing_.budget <= end_of_piece) return false;
    --listing_.budget;
    at.minor = gfn.value();
    at.level = ToInt(level);
    return true;
  }

  static PageRole RoleOf(Level level) {
    return PageRole::Of(
        {.level = ToInt(level), .direct = true, .access = kAllRights});
  }

  // True if the table passes the filter: then it is listed as a root.
  bool AddTable(const S2Table<G>& table, Level level, Gfn gfn) {
    const ShadowPageFilter& filter = listing_.filter;
    const uint64_t pages = PagesPer<G>(level) * G::kEntriesPerTable;
    if (filter.level != 0 && filter.level != ToInt(level)) return false;
    if (!filter.gfns.empty() &&
        !filter.gfns.Overlaps(GfnRange::Of(gfn, pages))) {
      return false;
    }
    ShadowPageInfo info;
    info.owner = MmuKind::kStage2;
    info.table = Hpa(reinterpret_cast<uintptr_t>(&table));
    info.gfn = gfn;
    info.role = RoleOf(level);
    info.root_count = 1;
    for (const S2Slot& slot : table.entries) {
      const S2Descriptor descriptor = slot.Load();
      if (!descriptor.IsPresent()) continue;
      ++info.present_entries;
      if (descriptor.IsLeaf(level)) ++info.leafs;
    }
    listing_.pages.push_back(info);
    listing_.budget -= G::kEntriesPerTable;
    return true;
  }

  static EntryPlace PlaceOf(const S2Slot& slot) {
    const auto at = reinterpret_cast<uintptr_t>(&slot);
    const uintptr_t table = at & ~uintptr_t{sizeof(S2Table<G>) - 1};
    return {Hpa(table), static_cast<int>((at - table) / sizeof(S2Slot))};
  }

  const Stage2State<G>& state_;
  ShadowPageLister& listing_;
  bool visited_ = false;
};

}  // namespace

template <TableGeometry G>
bool ListStage2Pages(const Stage2State<G>& state, ShadowPageLister& listing) {
  MMU_CHECK(listing.position.owner == MmuKind::kStage2 &&
            listing.pages.capacity() >= listing.limit);
  if (listing.filter.sync == ShadowPageFilter::Sync::kUnsync) return true;
  Stage2Lister<G> lister(state, listing);
  while (listing.budget > 0 && !listing.full()) {
    RcuReadGuard rcu;
    if (lister.ListPiece()) return true;
  }
  return false;
}

template bool ListStage2Pages(const Stage2State<Arm4K>&, ShadowPageLister&);
template bool ListStage2Pages(const Stage2State<Arm16K>&, ShadowPageLister&);
template bool ListStage2Pages(const Stage2State<Arm64K>&, ShadowPageLister&);

}  // namespace mmu
