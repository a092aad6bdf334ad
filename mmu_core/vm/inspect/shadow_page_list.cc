#include "mmu_core/vm/inspect/shadow_page_list.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/shadow/shadow_page_set.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_root.h"
#include "mmu_core/vm/inspect/shadow_page_info.h"

namespace mmu {
namespace {

// Above every gfn that any table maps.
constexpr Gfn kEndOfGfns{uint64_t{1} << 45};

Hpa AddressOf(const PageTable* table) {
  return Hpa(reinterpret_cast<uintptr_t>(table));
}

EntryPlace PlaceOf(const SpteSlot& slot) {
  return {AddressOf(TableHolding(slot)), IndexInTable(slot)};
}

// Counts in `info` what the table holds at this moment.
void CountEntries(const PageTable& table, Level level, ShadowPageInfo& info) {
  for (const SpteSlot& slot : table.entries) {
    const Spte spte = slot.Load();
    if (!spte.IsPresent()) continue;
    ++info.present_entries;
    if (spte.IsLeaf(level)) ++info.leafs;
  }
}

// Where the guest's table is, or what a direct page maps.
GfnRange ConcernedGfns(Gfn gfn, PageRole role) {
  if (!role.IsDirect()) return GfnRange::Of(gfn, 1);
  return GfnRange::Of(gfn, PagesPer(role.level()) * kEntriesPerTable);
}

bool Passes(const ShadowPageFilter& filter, Gfn gfn, PageRole role) {
  if (filter.level != 0 && filter.level != role.level_number()) return false;
  return filter.gfns.empty() || filter.gfns.Overlaps(ConcernedGfns(gfn, role));
}

ShadowPageInfo Describe(const ShadowPage& page, PageOwner owner) {
  ShadowPageInfo info;
  info.owner = owner;
  info.table = AddressOf(page.table);
  info.gfn = page.gfn;
  info.role = page.role;
  CountEntries(*page.table, page.role.level(), info);
  return info;
}

// One listing of the TDP MMU's tables.
class TdpLister {
 public:
  TdpLister(const ShadowPageFilter& filter, size_t limit, int64_t& budget,
            ShadowPagePosition& position, std::vector<ShadowPageInfo>& pages)
      : filter_(filter),
        limit_(limit),
        budget_(budget),
        position_(position),
        pages_(pages) {}

  // Looks at a piece of `root` from the position on. True at its end. REQUIRES:
  // an RCU read section.
  bool ListPiece(const TdpRoot& root) {
    const int64_t end_of_piece = budget_ - kLooksPerPiece;
    if (position_.major != root.id()) {
      position_ = {.owner = PageOwner::kTdp, .major = root.id()};
    }
    if (position_.level > ToInt(root.level())) {
      position_.level = ToInt(root.level());
      if (Passes(filter_, Gfn(0), root.role())) {
        Add(*TablePool::DescriptorOf(root.table()));
        pages_.back().root_count = 1;
        if (root.IsInvalid()) {
          pages_.back().role = pages_.back().role.Invalidated();
        }
      }
    }
    if (filter_.level >= ToInt(root.level())) return true;
    // A table of level n hangs at an entry of level n + 1.
    const Level min_level =
        filter_.level == 0 ? Level::k2M : ParentOf(filter_.level);
    GfnRange range{Gfn(position_.minor), kEndOfGfns};
    if (!filter_.gfns.empty()) {
      range.start = std::max(range.start, filter_.gfns.start);
      range.end = std::min(range.end, filter_.gfns.end);
    }
    if (range.empty()) return true;
    for (TdpCursor c(root.table(), root.level(), range, min_level); c.Valid();
         c.Next()) {
      if (!IsAfterPosition(c)) continue;
      if (pages_.size() == limit_ || budget_ <= end_of_piece) return false;
      --budget_;
      position_.minor = c.gfn().value();
      position_.level = ToInt(c.level()) - 1;
      if (!c.IsPresentTable()) continue;
      const ShadowPage& page = *TablePool::DescriptorOf(TableOf(c.old_spte()));
      if (!Passes(filter_, page.gfn, page.role)) continue;
      Add(page);
      pages_.back().parent_count = 1;
      pages_.back().parents[0] = PlaceOf(c.slot());
    }
    return true;
  }

 private:
  static Level ParentOf(int level) { return static_cast<Level>(level + 1); }

  // Whether the walk had not come to the cursor's entry: a table comes before
  // those below it.
  bool IsAfterPosition(const TdpCursor& c) const {
    const uint64_t gfn = c.gfn().value();
    return gfn > position_.minor ||
           (gfn == position_.minor && ToInt(c.level()) - 1 < position_.level);
  }

  void Add(const ShadowPage& page) {
    pages_.push_back(Describe(page, PageOwner::kTdp));
    budget_ -= kEntriesPerTable;
  }

  const ShadowPageFilter& filter_;
  const size_t limit_;
  int64_t& budget_;
  ShadowPagePosition& position_;
  std::vector<ShadowPageInfo>& pages_;
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

// Returns how many entries and parents it looked at.
int64_t AddShadowPage(const MmuReadLocked& lock, const ShadowPageState& page,
                      std::vector<ShadowPageInfo>& pages) {
  ShadowPageInfo info = Describe(*page.page, PageOwner::kShadow);
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

bool ListTdpPages(const RootList& roots, const ShadowPageFilter& filter,
                  size_t limit, int64_t& budget, ShadowPagePosition& position,
                  std::vector<ShadowPageInfo>& pages) {
  MMU_CHECK(position.owner == PageOwner::kTdp && pages.capacity() >= limit);
  if (filter.sync == ShadowPageFilter::Sync::kUnsync) return true;
  TdpLister lister(filter, limit, budget, position, pages);
  while (budget > 0 && pages.size() < limit) {
    RcuReadGuard rcu;
    const TdpRoot* root = RootFrom(roots, position.major);
    if (root == nullptr) return true;
    --budget;
    if (lister.ListPiece(*root)) {
      position = {.owner = PageOwner::kTdp, .major = root->id() + 1};
    }
  }
  return false;
}

bool ListShadowMmuPages(MmuLock& lock, const ShadowPageSet& set,
                        const ShadowPageFilter& filter, size_t limit,
                        int64_t& budget, ShadowPagePosition& position,
                        std::vector<ShadowPageInfo>& pages) {
  MMU_CHECK(position.owner == PageOwner::kShadow && pages.capacity() >= limit);
  while (position.major < ShadowPageSet::kChains) {
    if (budget <= 0 || pages.size() == limit) return false;
    int64_t looks = 0;
    MmuReadLocked held(lock, LockOp::kAge, /*cost=*/nullptr);
    while (position.major < ShadowPageSet::kChains && looks < kLooksPerPiece &&
           pages.size() < limit) {
      const ShadowPageState* page =
          set.FirstInChain(static_cast<int>(position.major));
      for (uint64_t i = 0; i < position.minor && page != nullptr; ++i) {
        page = page->hash_next;
      }
      for (; page != nullptr && looks < kLooksPerPiece && pages.size() < limit;
           page = page->hash_next) {
        ++looks;
        ++position.minor;
        if (filter.sync == ShadowPageFilter::Sync::kUnsync &&
            !page->unsync.load(std::memory_order_relaxed)) {
          continue;
        }
        if (!Passes(filter, page->gfn(), page->role())) continue;
        looks += AddShadowPage(held, *page, pages);
      }
      if (page != nullptr) break;  // the chain goes on
      ++looks;
      ++position.major;
      position.minor = 0;
    }
    budget -= looks;
  }
  return true;
}

ShadowPageListing ListShadowPages(VmCore& vm, const ShadowPageFilter& filter,
                                  const ShadowPagePosition& from,
                                  size_t limit) {
  MMU_CHECK(limit <= kMaxListedTables);
  constexpr int64_t kBudget = int64_t{1} << 22;
  ShadowPageListing listing;
  listing.pages.reserve(limit);
  ShadowPagePosition position = from;
  int64_t budget = kBudget;
  if (position.owner == PageOwner::kTdp) {
    if (filter.owner != PageOwner::kShadow &&
        !ListTdpPages(vm.tdp.roots(), filter, limit, budget, position,
                      listing.pages)) {
      listing.next = position;
      return listing;
    }
    position = {.owner = PageOwner::kShadow};
  }
  if (vm.shadow != nullptr && filter.owner != PageOwner::kTdp &&
      !ListShadowMmuPages(vm.mmu_lock, vm.shadow->pages().set(), filter, limit,
                          budget, position, listing.pages)) {
    listing.next = position;
  }
  return listing;
}

}  // namespace mmu
