// Testing and clearing Accessed bits, under RCU alone (AGE-10..17).

#include <algorithm>
#include <cstdint>

#include "absl/base/attributes.h"
#include "absl/types/span.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"

namespace mmu {
namespace {

// Makes one attempt. If the entry changed meanwhile, the page was young
// nevertheless, and the other thread's value stays (AGE-13). An atomic AND
// would not do: it would clear a bit of a frozen entry.
void TryClear(SpteSlot& slot, Spte expected, const SpteFormat& format) {
  const Spte wanted = format.WithoutAccessed(expected);
  AtHook(HookPoint::kAgeToExchange);
  slot.CompareExchange(expected, wanted);
}

// Whether the result needs a bitmap of mapped pages.
enum class KeepMapped : uint8_t { kNo, kYes };

// Ages the `count` entries from `first_slot` on, all of one 4K table, whose
// pages begin at bit `first_bit` of the result. Most entries are old and cost
// one load and one comparison.
//
// Not inlined: inside the walk the loop's counters would not get registers,
// which would double the time.
template <KeepMapped kKeepMapped>
ABSL_ATTRIBUTE_NOINLINE void AgeTable(SpteSlot* first_slot, int count,
                                      uint64_t first_bit,
                                      const SpteFormat& format, AgeMode mode,
                                      AgeResult& result) {
  const uint64_t young_bits = spte_bits::kMmuPresent | format.accessed_mask();
  uint64_t old = 0;
  uint64_t young = 0;
  for (int i = 0; i < count; ++i) {
    const Spte spte = first_slot[i].Load();
    const uint64_t bits = spte.bits() & young_bits;
    if constexpr (kKeepMapped == KeepMapped::kYes) {
      const uint64_t mapped = (bits & spte_bits::kMmuPresent) != 0;
      result.mapped[(first_bit + i) / 64] |= mapped << ((first_bit + i) % 64);
    }
    if (bits != young_bits) {
      old += bits == spte_bits::kMmuPresent;
      continue;
    }
    ++young;
    const uint64_t bit = first_bit + i;
    result.young[bit / 64] |= uint64_t{1} << (bit % 64);
    if (mode == AgeMode::kTestAndClear) TryClear(first_slot[i], spte, format);
  }
  result.old_page_count += old;
  result.young_page_count += young;
}

}  // namespace

void TdpMmu::Age(int as_id, GfnRange range, AgeMode mode, AgeResult& result,
                 MmuCost* cost) const {
  const SpteFormat& format = parts_.format;
  const bool keep_mapped = !result.mapped.empty();
  const auto age_table =
      keep_mapped ? &AgeTable<KeepMapped::kYes> : &AgeTable<KeepMapped::kNo>;
  int64_t visited = 0;
  RcuReadGuard rcu;
  for (TdpRoot* root = roots_.FirstRcu(RootFilter::kValid, as_id);
       root != nullptr;
       root = roots_.NextRcu(root, RootFilter::kValid, as_id)) {
    for (TdpCursor c(root->table(), root->level(), range, Level::k4K);
         c.Valid(); c.Next()) {
      if (c.level() == Level::k4K) {
        const int entries = c.EntriesLeft();
        age_table(&c.slot(), entries, c.gfn() - range.start, format, mode,
                  result);
        c.SkipToLastEntry();
        visited += entries;
        continue;
      }
      ++visited;
      if (!c.IsPresentLeaf()) continue;
      const GfnRange pages = c.entry_range().Intersect(range);
      const BitRun bits = {pages.start - range.start, pages.end - range.start};
      if (keep_mapped) SetRun(absl::MakeSpan(result.mapped), bits);
      const Spte spte = c.old_spte();
      if (!format.IsAccessed(spte)) {
        result.old_page_count += pages.pages();
        continue;
      }
      result.young_page_count += pages.pages();
      SetRun(absl::MakeSpan(result.young), bits);
      if (c.entry_range().end > range.end) {
        result.young_until = std::max(result.young_until, c.entry_range().end);
      }
      if (mode == AgeMode::kTestAndClear) TryClear(c.slot(), spte, format);
    }
  }
  if (cost != nullptr) cost->sptes_visited_count += visited;
}

}  // namespace mmu
