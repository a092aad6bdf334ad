// Testing and clearing the Accessed bits of a range, to find young memory.

#ifndef MMU_CORE_AGING_AGING_H_
#define MMU_CORE_AGING_AGING_H_

#include <array>
#include <cstdint>
#include <vector>

#include "mmu_core/base/address.h"
#include "mmu_core/stats/labels.h"

namespace mmu {

enum class AgeMode : uint8_t { kTest, kTestAndClear };

// Whether an MMU that ages under mmu_lock may be asked, or is left out.
enum class AgeLock : uint8_t { kLocklessOnly, kMayLock };

// A value. A page is young if a leaf SPTE that maps it has its Accessed bit
// set. A huge leaf is one unit: all its pages are young, or none (AGE-17).
// Unmapped pages are neither young nor old.
struct AgeResult {
  uint64_t young_page_count = 0;  // 4 KiB pages
  uint64_t old_page_count = 0;
  // One bit per page of the requested range, bit 0 its first page: 1 is young.
  std::vector<uint64_t> young;
  // The same for mapped pages. Empty unless several MMUs, which may map the
  // same page, are asked: then they fill in the bitmaps, and CountPages
  // computes the counts from them.
  std::vector<uint64_t> mapped;
  // By MmuKind: the MMU was left out, since it would have taken mmu_lock.
  std::array<bool, kMmuKinds> skipped{};
  // The TDP MMU, which ages quickly, found a young page (AGE-32).
  bool was_fast = false;
  // Pages from the range's end up to this gfn are young, and were aged,
  // together with the range: a young huge leaf extends past the range's end
  // (AGE-17). Gfn 0 if there are none.
  Gfn young_until;
};

// Computes the counts from the bitmaps: a page is young if any MMU found it
// young, old if it is mapped and no MMU did (AGE-11). REQUIRES: both bitmaps
// are present.
void CountPages(AgeResult& result);

// Makes the first `pages` pages, which are mapped, young; corrects the counts
// for those that were counted as old.
void MarkYoung(AgeResult& result, uint64_t pages);

}  // namespace mmu

#endif  // MMU_CORE_AGING_AGING_H_
