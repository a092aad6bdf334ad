// The TLB of one model vCPU: translations that the vCPU uses without walking
// the tables again. It deliberately keeps stale translations until a flush is
// requested: if an MMU forgets a flush, a later access uses a stale translation
// and a test fails (TLB-12).
//
// Translations are tagged (tlb_tag.h). All translations with one tag are a
// context. The vCPU selects the context that it uses; translations of other
// contexts stay, but are not used. So a context that is selected again is as it
// was left, unless it was flushed.

#ifndef MMU_CORE_TLB_BASIC_VCPU_TLB_H_
#define MMU_CORE_TLB_BASIC_VCPU_TLB_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/base/optimization.h"
#include "absl/hash/hash.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/paging_traits.h"
#include "mmu_core/tlb/basic_paging_structure_cache.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/tlb/tlb_options.h"
#include "mmu_core/tlb/tlb_tag.h"

namespace mmu {

// One cached translation, at the mapping's own size. A value.
struct TlbEntry {
  PageNumber base_page;  // the first that it translates; aligned to `level`
  Gfn gfn = {};          // the first that it maps; equal on a second stage
  Pfn pfn;               // of the page's first frame
  // First byte of the mapped page in this process; null if the backing keeps
  // no contents.
  std::byte* host = nullptr;
  uint64_t root_id = 0;  // of the root that the walk started from; for audits
  Level level{1};
  bool writable = false;
  bool executable = false;
  bool dirty_set = false;  // the SPTE's D bit is known to be set
  // The rights that all entries on the path grant. For shadow pages, whose
  // rights distinguish user and supervisor accesses; a second stage's do not.
  AccessRights rights = {};
};

// What the page numbers of a TLB are.
enum class TlbPages : uint8_t {
  kGuestPhysical,  // gfns, and so pages of memslots, which may log
  kOther,          // linear pages, or pages of L2
};

// Three direct-mapped arrays, one per level of leafs, so an insertion may evict
// any other entry of its level. A template over the kind of tables. With
// TlbOptions::Evictions::kNever the evicted entries are kept in a map and still
// translate. Externally synchronised by the vCPU: only its thread may call.
template <PagingTraits Traits>
class BasicVcpuTlb {
 public:
  using Geometry = typename Traits::Geometry;
  using Tables = BasicPagingStructureCache<Traits>;

  // Per level, by the names that the levels have with a granule of 4 KiB.
  static constexpr int kEntries4K = 1024;
  static constexpr int kEntries2M = 256;
  static constexpr int kEntries1G = 16;
  // Page numbers must be below 2^45 (57 bits of virtual address).
  static constexpr int kPageNumberBits = 57 - kPageShift;

  // No context is selected.
  explicit BasicVcpuTlb(const TlbOptions& options = {});
  BasicVcpuTlb(const BasicVcpuTlb&) = delete;
  BasicVcpuTlb& operator=(const BasicVcpuTlb&) = delete;

  // Selects the context of `tag`, or none, in which nothing is translated.
  void Select(TlbTag tag);
  void SelectNone();

  // The entry that translates `page`, the smallest page first, or null. Valid
  // until the next non-const call.
  const TlbEntry* Lookup(PageNumber page) const {
    const TlbEntry* const entry = LookupInSlots(page);
    if (entry != nullptr || precise_ == nullptr) return entry;
    return LookupEvicted(page);
  }
  // The same without the entries that others have pushed out (kNever).
  const TlbEntry* LookupInSlots(PageNumber page) const {
    if (const Slot& s = SlotOf(page, Level::k4K);
        ABSL_PREDICT_TRUE(s.tag == TagOf(page, Level::k4K))) {
      return &s.entry;
    }
    if (const Slot& s = SlotOf(page, Level::k2M);
        s.tag == TagOf(page, Level::k2M)) {
      return &s.entry;
    }
    if (const Slot& s = SlotOf(page, Level::k1G);
        s.tag == TagOf(page, Level::k1G)) {
      return &s.entry;
    }
    return nullptr;
  }

  // Whether translations of `page` at two levels are live. The tables never
  // give two, but they may give one and then, changed, another.
  bool HasConflict(PageNumber page) const;

  // REQUIRES: a context is selected, entry.level is one of leafs, and
  // entry.base_page is aligned to it.
  void Insert(const TlbEntry& entry);

  // The paging-structure cache of the selected context, for walks and audits.
  // Null if there is none (TlbOptions).
  Tables* tables() { return precise_ == nullptr ? nullptr : &precise_->tables; }

  // --- Flushes. Each drops cached tables of the same context, too. ---

  // Drops everything, in constant time with TlbOptions::Flushes::kWhole.
  void FlushAll();
  // Drops one context, selected or not.
  void FlushContext(TlbTag tag);
  // Drops the entries of the selected context that translate `page`, of any
  // size, and the tables that a walk for it uses. A fault does this (PF-18).
  void FlushPage(PageNumber page);
  // The same in the context of `tag`: INVPCID of one address (SDM vol. 3,
  // 4.10.4.1).
  void InvalidatePage(TlbTag tag, PageNumber page);
  // The same, and all tables of that context: INVLPG (SDM vol. 3, 4.10.4.1).
  void Invlpg(TlbTag tag, PageNumber page);
  // Drops what `flush` covers, in all contexts. `pages`: what the page numbers
  // of this TLB are. REQUIRES: `flush` covers the MMU of this TLB.
  void Flush(const TlbFlush& flush, TlbPages pages);

  // Drops at most one entry, chosen by `random`: a TLB may evict at any time.
  void DropRandom(uint64_t random);

  // --- For audits. ---

  // Calls fn(const TlbEntry&) for each entry of the selected context.
  template <typename Fn>
  void ForEach(Fn fn) const {
    if (tag_.has_value()) ForEachIn(*tag_, fn);
  }
  // The same for the context of `tag`.
  template <typename Fn>
  void ForEachIn(TlbTag tag, Fn fn) const {
    const Context* const context = Find(tag);
    if (context == nullptr) return;
    for (int i = 0; i < kSlots; ++i) {
      if (NumberIn(slots_[i].tag) == context->number) fn(slots_[i].entry);
    }
    if (precise_ == nullptr) return;
    for (const auto& [key, entry] : precise_->evicted) {
      if (NumberIn(key.tag) == context->number) fn(entry);
    }
  }
  // Calls fn(const CachedTable&) for each cached table of that context.
  template <typename Fn>
  void ForEachTableIn(TlbTag tag, Fn fn) const {
    const Context* const context = Find(tag);
    if (context == nullptr || precise_ == nullptr) return;
    precise_->tables.ForEachIn(context->number, fn);
  }

 private:
  static constexpr int kSlots = kEntries4K + kEntries2M + kEntries1G;
  static constexpr int kNumberBits = 64 - kPageNumberBits;
  // Never used for an entry.
  static constexpr uint64_t kNoContext = (uint64_t{1} << kNumberBits) - 1;
  // More tags than a guest uses at once. A tag beyond makes all contexts
  // empty.
  static constexpr size_t kMaxContexts = 256;

  // A context has a number. A flush of the context gives it a new number, so
  // that its entries are dead, as SVM gives a vCPU a new ASID.
  struct Context {
    TlbTag tag;
    uint64_t number = 0;  // 1 .. kNoContext - 1, in use by one context at most
  };

  // One cache line. The slot's tag combines the page number at the entry's size
  // with the number of the context, so one comparison tests both the page and
  // whether the entry is of the selected context and was not flushed. No
  // context has number 0: a zero tag is an empty slot.
  struct alignas(64) Slot {
    uint64_t tag = 0;
    TlbEntry entry;
  };

  // The parts that only TlbOptions::Flushes::kPrecise needs.
  struct Precise {
    struct Key {
      uint64_t tag;  // as in Slot
      Level level;

      friend bool operator==(const Key&, const Key&) = default;
      template <typename H>
      friend H AbslHashValue(H h, const Key& key) {
        return H::combine(std::move(h), key.tag, key.level);
      }
    };
    explicit Precise(const TlbOptions& options)
        : options(options), random(options.seed), tables(options) {}

    const TlbOptions options;
    std::mt19937_64 random;
    std::unordered_map<Key, TlbEntry, absl::Hash<Key>> evicted;
    Tables tables;
  };

  static bool IsCovered(const TlbEntry& entry, const TlbFlush& flush) {
    const uint64_t pages = PagesPer<Geometry>(entry.level);
    return flush.gfns.Overlaps(GfnRange::Of(entry.gfn, pages)) &&
           (flush.entry_pages == 0 || flush.entry_pages == pages);
  }
  static constexpr int FirstSlot(Level level) {
    return level == Level::k4K   ? 0
           : level == Level::k2M ? kEntries4K
                                 : kEntries4K + kEntries2M;
  }
  static constexpr int EntriesOf(Level level) {
    return level == Level::k4K   ? kEntries4K
           : level == Level::k2M ? kEntries2M
                                 : kEntries1G;
  }
  static int IndexOfSlot(PageNumber page, Level level) {
    return FirstSlot(level) +
           static_cast<int>((page.value() >> PagesShift<Geometry>(level)) &
                            (EntriesOf(level) - 1));
  }
  const Slot& SlotOf(PageNumber page, Level level) const {
    return slots_[IndexOfSlot(page, level)];
  }
  static uint64_t TagFor(uint64_t number, PageNumber page, Level level) {
    return (page.value() >> PagesShift<Geometry>(level)) << kNumberBits |
           number;
  }
  uint64_t TagOf(PageNumber page, Level level) const {
    return TagFor(number_, page, level);
  }
  static uint64_t NumberIn(uint64_t tag) {
    return tag & ((uint64_t{1} << kNumberBits) - 1);
  }

  const Context* Find(TlbTag tag) const;
  uint64_t NewNumber();
  void SetNumber(uint64_t number);
  const TlbEntry* LookupEvicted(PageNumber page) const;
  void MakeRoomIn(const Slot& slot, const TlbEntry& next);
  void FlushPageOf(uint64_t number, PageNumber page);

  const std::unique_ptr<Slot[]> slots_;  // 4K, then 2M, then 1G
  uint64_t number_ = kNoContext;         // of the selected context
  std::optional<TlbTag> tag_;            // of the selected context
  std::vector<Context> contexts_;
  uint64_t next_number_ = 1;
  const std::unique_ptr<Precise> precise_;  // null with kWhole
};

}  // namespace mmu

#endif  // MMU_CORE_TLB_BASIC_VCPU_TLB_H_
