// What follows from the change of an entry of page tables that many threads
// change: the counts of leafs and tables, and the end of a table that was
// unlinked (TDP-27, TDP-28). A template over the kind of tables.

#ifndef MMU_CORE_MMU_ENTRY_CHANGES_H_
#define MMU_CORE_MMU_ENTRY_CHANGES_H_

#include <concepts>
#include <cstdint>
#include <optional>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/paging/entry_slot.h"
#include "mmu_core/paging/paging_traits.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/refill.h"

namespace mmu {

// Traits whose tables come from a pool (paging/basic_table_pool.h).
template <typename T>
concept PooledPaging = PagingTraits<T> &&
    requires(const typename T::Page page) {
  typename T::Pool;
  { T::LevelOf(page) } -> std::same_as<Level>;
  // The value of an entry whose table is being torn down.
  { T::Entry::Frozen() } -> std::same_as<typename T::Entry>;
};

// A change that may unlink a table. It lasts from before the change until the
// table was handed to RCU; threads that lack tables wait for its end.
class MayUnlink {
 public:
  template <PageTableEntry Entry>
  MayUnlink(Level level, Entry old_entry, Entry desired) {
    if (old_entry.IsPresentTable(level) && !desired.IsPresentTable(level) &&
        !Reclaim::ThisThreadHasOne()) {
      reclaim_.emplace();
    }
  }

 private:
  std::optional<Reclaim> reclaim_;
};

// How other threads change entries meanwhile: by compare-exchange, with
// mmu_lock in read mode, or not at all.
enum class ChangeMode : uint8_t { kShared, kExclusive };

// `OnUnlink` is called with each table that was unlinked, before its entries
// are torn down. Thread-safe; REQUIRES for every call: an RCU read section
// (TDP-30).
template <PooledPaging Traits, std::invocable<typename Traits::Page&> OnUnlink>
class EntryChanges {
 public:
  using Geometry = typename Traits::Geometry;
  using Entry = typename Traits::Entry;
  using Page = typename Traits::Page;
  using Pool = typename Traits::Pool;

  EntryChanges(MmuCounters& counters, OnUnlink on_unlink)
      : counters_(counters), on_unlink_(on_unlink) {}

  // The entries removed with a table and the tables below it.
  struct Removed {
    int64_t entries = 0;
    uint64_t leaf_bits = 0;  // of all leafs, ORed
  };

  // The entry of `level` that maps from `gfn` on was `old_entry` and is now
  // `new_entry`. If it pointed at a table and no longer does, tears the table
  // down.
  Removed Handle(Gfn gfn, Level level, Entry old_entry, Entry new_entry,
                 ChangeMode mode) const {
    if (old_entry == new_entry) return {};
    const bool was_leaf = old_entry.IsPresentLeaf(level);
    const bool is_leaf = new_entry.IsPresentLeaf(level);

    // A leaf never changes its frame while present: a cached translation would
    // still give the old frame (TDP-27, 1).
    MMU_CHECK(!(was_leaf && is_leaf && old_entry.pfn() != new_entry.pfn()));

    if (was_leaf != is_leaf) counters_.AddLeafs(level, is_leaf ? 1 : -1);

    if (old_entry.IsPresentTable(level) && !new_entry.IsPresentTable(level)) {
      Page* page = Pool::DescriptorOf(Traits::TableOf(old_entry));
      MMU_DCHECK(page->gfn == gfn);
      return RemoveTable(*page, mode);
    }
    return {.leaf_bits = was_leaf ? old_entry.bits() : 0};
  }

 private:
  // The table is unlinked. Readers that entered before may still walk it, and
  // in shared mode may still try to change it. Each entry gets the frozen
  // value, so that their compare-exchange fails and the fault retries from the
  // top:
  //
  //   CPU 0 (fault)                       CPU 1 (zap)
  //   1. enters the table, reads entry:
  //      not present
  //                                       2. unlinks the table
  //                                       3. exchanges the entry with frozen
  //   4. compare-exchange expects "not
  //      present", finds frozen: fails
  //   5. retries, does not find the table
  //
  // Without 3, 4 would put a leaf into a table that is about to be freed, and
  // its page count would never go down. If 4 comes before 3, the exchange
  // returns the new leaf and 3's accounting undoes it.
  Removed RemoveTable(Page& page, ChangeMode mode) const {
    const Level level = Traits::LevelOf(page);
    Removed all{.entries = Geometry::kEntriesPerTable};
    AtHook(HookPoint::kUnlinkToCount);
    Pool::BeginGracePeriod(page);
    on_unlink_(page);
    AtHook(HookPoint::kUnlinkToFreeze);
    for (int i = 0; i < Geometry::kEntriesPerTable; ++i) {
      EntrySlot<Entry>& slot = page.table->entries[i];
      Entry old_entry;
      if (mode == ChangeMode::kShared) {
        // Another CPU may own the entry for a moment: this thread may not
        // replace a frozen value, so it waits for the owner's value (TDP-28).
        do {
          old_entry = slot.Exchange(Entry::Frozen());
        } while (old_entry.IsFrozen());
      } else {
        old_entry = slot.Load();
        if (!old_entry.IsPresent()) continue;
        old_entry = slot.Exchange(Entry::Frozen());
      }
      const Removed below = Handle(
          page.gfn + static_cast<uint64_t>(i) * PagesPer<Geometry>(level),
          level, old_entry, Entry::Frozen(), mode);
      all.entries += below.entries;
      all.leaf_bits |= below.leaf_bits;
    }
    counters_.AddTables(-1);
    AtHook(HookPoint::kFreezeToFree);
    Pool::HandToRcu(page);
    return all;
  }

  MmuCounters& counters_;
  const OnUnlink on_unlink_;
};

}  // namespace mmu

#endif  // MMU_CORE_MMU_ENTRY_CHANGES_H_
