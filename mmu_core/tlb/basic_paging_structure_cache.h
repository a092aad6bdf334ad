// A vCPU's paging-structure cache: pointers to tables, which a walk uses
// instead of reading the upper entries again (SDM vol. 3, 4.10.3 and 29.4.1).
// It keeps a pointer until it is told to drop the pointer, so a table that was
// unlinked without a flush is still walked.

#ifndef MMU_CORE_TLB_BASIC_PAGING_STRUCTURE_CACHE_H_
#define MMU_CORE_TLB_BASIC_PAGING_STRUCTURE_CACHE_H_

#include <cstdint>
#include <optional>
#include <random>
#include <unordered_map>
#include <utility>

#include "absl/hash/hash.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/paging_traits.h"
#include "mmu_core/tlb/tlb_options.h"

namespace mmu {

// A pointer to a table that a walk has found. A value.
template <typename Table>
struct BasicCachedTable {
  Table* table = nullptr;
  Level level{1};
  PageNumber first;      // the first page that the table translates
  AccessRights rights;   // granted by all entries above the table
  uint64_t root_id = 0;  // of the root that the walk started from; for audits
};

// The pointers of all contexts of one TLB (vcpu_tlb.h). It has no bound: its
// owner drops them, or chance does (TlbOptions). A template over the kind of
// tables. Externally synchronised by the vCPU.
template <PagingTraits Traits>
class BasicPagingStructureCache {
 public:
  using Geometry = typename Traits::Geometry;
  using CachedTable =
      BasicCachedTable<EntryTable<Geometry, typename Traits::Entry>>;

  explicit BasicPagingStructureCache(const TlbOptions& options)
      : evictions_(options.evictions), random_(options.seed) {}

  // Find and Insert are about this context.
  void SelectContext(uint64_t context) { context_ = context; }

  // The table nearest to the leafs that is cached for `page`, below `top`.
  std::optional<CachedTable> Find(PageNumber page, Level top);
  void Insert(const CachedTable& table);
  // Drops the tables that a walk for `page` might use.
  void DropPage(uint64_t context, PageNumber page);
  void DropContext(uint64_t context);
  // Of all contexts.
  void DropRange(PageNumber first, PageNumber end);
  void DropAllContexts() { tables_.clear(); }

  // Calls fn(const CachedTable&) for each table of the context.
  template <typename Fn>
  void ForEachIn(uint64_t context, Fn fn) const {
    for (const auto& [key, table] : tables_) {
      if (key.context == context) fn(table);
    }
  }

 private:
  struct Key {
    uint64_t context = 0;
    uint64_t prefix = 0;  // of the page numbers, above the table's own bits
    Level level{1};

    friend bool operator==(const Key&, const Key&) = default;
    template <typename H>
    friend H AbslHashValue(H h, const Key& key) {
      return H::combine(std::move(h), key.context, key.prefix, key.level);
    }
  };

  static Key KeyOf(uint64_t context, PageNumber page, Level level) {
    return {context, page.value() >> PagesShift<Geometry>(ParentOf(level)),
            level};
  }
  // Whether chance decides that an entry is not there.
  bool Chance() {
    return evictions_ == TlbOptions::Evictions::kRandom && random_() % 16 == 0;
  }

  const TlbOptions::Evictions evictions_;
  std::mt19937_64 random_;
  uint64_t context_ = 0;
  std::unordered_map<Key, CachedTable, absl::Hash<Key>> tables_;
};

}  // namespace mmu

#endif  // MMU_CORE_TLB_BASIC_PAGING_STRUCTURE_CACHE_H_
