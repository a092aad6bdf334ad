// Which memory is young: testing and clearing the Accessed bits of a range.

#ifndef MMU_CORE_AGING_AGING_H_
#define MMU_CORE_AGING_AGING_H_

#include <cstdint>
#include <vector>

#include "mmu_core/base/address.h"

namespace mmu {

enum class AgeMode : uint8_t { kTest, kTestAndClear };

// A value. A page is young if a leaf SPTE that maps it has its Accessed bit
// set; a huge leaf is one unit, so all its pages are young or none (AGE-17).
// Pages that nothing maps are neither young nor old.
struct AgeResult {
  uint64_t young_page_count = 0;  // 4 KiB pages
  uint64_t old_page_count = 0;
  // One bit per page of the asked range, bit 0 its first page: 1 is young.
  std::vector<uint64_t> young;
  // The same for pages that something maps. Empty unless several MMUs are
  // asked, which may map one page each: then those fill in the bitmaps, and
  // CountPages says what it comes to.
  std::vector<uint64_t> mapped;
  // The TDP MMU, whose ageing is fast, found a young page (AGE-32).
  bool was_fast = false;
  // Pages from the range's end to here are young with it, and were aged with
  // it: a huge leaf that is young lies in the range only in part (AGE-17). Gfn
  // 0 if there is none.
  Gfn young_until;
};

// Makes the counts what the bitmaps say: a page is young if an MMU found it so,
// old if some map it and none did (AGE-11). REQUIRES: both bitmaps are there.
void CountPages(AgeResult& result);

// The first `pages` pages are mapped, and young: those that were taken for old
// are counted anew.
void MarkYoung(AgeResult& result, uint64_t pages);

}  // namespace mmu

#endif  // MMU_CORE_AGING_AGING_H_
