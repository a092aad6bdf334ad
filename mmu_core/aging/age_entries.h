// Ages leafs: the entries of one table of small pages in a plain loop, since a
// cursor's step per entry would cost more than the work on the entry, and a
// larger leaf by itself.

#ifndef MMU_CORE_AGING_AGE_ENTRIES_H_
#define MMU_CORE_AGING_AGE_ENTRIES_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/base/attributes.h"
#include "absl/types/span.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/gfn_range.h"

namespace mmu {

// The bits of a present leaf, and of one that was accessed as well. A value.
struct AgeBits {
  uint64_t present = 0;
  uint64_t accessed = 0;
};

// Sets the bits of the `kPages` pages from `first` on if `wanted`. Without a
// branch where it can: the caller's loop is short.
template <uint64_t kPages>
inline void SetPagesIf(bool wanted, std::vector<uint64_t>& words,
                       uint64_t first) {
  if constexpr (kPages == 1) {
    words[first / kWordBits] |= uint64_t{wanted} << (first % kWordBits);
  } else if (wanted) {
    SetRun(absl::MakeSpan(words), {first, first + kPages});
  }
}

// The loop of AgeEntries. Most entries are old and cost one load and one
// comparison.
//
// Not inlined: inside a walk the loop's counters would not get registers, which
// would double the time.
template <uint64_t kPages, KeepMapped kKeepMapped, typename Slot,
          typename Clear>
ABSL_ATTRIBUTE_NOINLINE void AgeEntriesLoop(Slot* first, int count,
                                            uint64_t first_bit, AgeBits bits_of,
                                            AgeMode mode, AgeResult& result,
                                            Clear clear) {
  const uint64_t young_bits = bits_of.present | bits_of.accessed;
  uint64_t old = 0;
  uint64_t young = 0;
  for (int i = 0; i < count; ++i) {
    const auto entry = first[i].Load();
    const uint64_t bits = entry.bits() & young_bits;
    const uint64_t bit = first_bit + static_cast<uint64_t>(i) * kPages;
    if constexpr (kKeepMapped == KeepMapped::kYes) {
      SetPagesIf<kPages>((bits & bits_of.present) != 0, result.mapped, bit);
    }
    if (bits != young_bits) {
      old += bits == bits_of.present;
      continue;
    }
    ++young;
    SetPagesIf<kPages>(true, result.young, bit);
    if (mode == AgeMode::kTestAndClear) clear(first[i], entry);
  }
  result.old_page_count += old * kPages;
  result.young_page_count += young * kPages;
}

// Adds the `count` entries from `first` on to `result`. Each maps `kPages`
// pages of 4 KiB, those of the first entry from bit `first_bit` of the result
// on. Calls clear(slot, entry) for each young entry if `mode` clears.
template <uint64_t kPages, typename Slot, typename Clear>
void AgeEntries(Slot* first, int count, uint64_t first_bit, AgeBits bits_of,
                AgeMode mode, AgeResult& result, Clear clear) {
  if (result.mapped.empty()) {
    AgeEntriesLoop<kPages, KeepMapped::kNo>(first, count, first_bit, bits_of,
                                            mode, result, clear);
  } else {
    AgeEntriesLoop<kPages, KeepMapped::kYes>(first, count, first_bit, bits_of,
                                             mode, result, clear);
  }
}

// Adds the pages of `range` that the leaf at the cursor maps to `result`, and
// advances the cursor. The leaf is one unit (AGE-17): its pages outside of the
// range share its Accessed bit. Calls clear(slot, entry) if the leaf is young
// and `mode` clears. A leaf that is split meanwhile is not counted again by its
// children.
template <typename Cursor, typename Clear>
void AgeLeaf(Cursor& cursor, GfnRange range, bool accessed, AgeMode mode,
             AgeResult& result, Clear clear) {
  const GfnRange leaf = cursor.entry_range();
  const GfnRange pages = leaf.Intersect(range);
  const BitRun bits = {pages.start - result.start, pages.end - result.start};
  if (!result.mapped.empty()) SetRun(absl::MakeSpan(result.mapped), bits);
  if (accessed) {
    result.young_page_count += pages.pages();
    SetRun(absl::MakeSpan(result.young), bits);
    if (leaf.end > range.end) {
      result.young_until = std::max(result.young_until, leaf.end);
    }
    if (mode == AgeMode::kTestAndClear) {
      clear(cursor.slot(), cursor.old_spte());
    }
  } else {
    result.old_page_count += pages.pages();
  }
  cursor.NextAfterLeaf();
}

}  // namespace mmu

#endif  // MMU_CORE_AGING_AGE_ENTRIES_H_
