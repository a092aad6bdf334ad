#include "mmu_core/aging/aging.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mmu_core/base/check.h"

namespace mmu {

void SetPages(std::vector<uint64_t>& bitmap, uint64_t first, uint64_t count) {
  for (uint64_t bit = first; bit < first + count;) {
    if (bit % 64 == 0 && first + count - bit >= 64) {
      bitmap[bit / 64] = ~uint64_t{0};
      bit += 64;
    } else {
      bitmap[bit / 64] |= uint64_t{1} << (bit % 64);
      ++bit;
    }
  }
}

void CountPages(AgeResult& result) {
  MMU_CHECK(result.mapped.size() == result.young.size());
  result.young_page_count = 0;
  result.old_page_count = 0;
  for (size_t i = 0; i < result.young.size(); ++i) {
    result.young_page_count += std::popcount(result.young[i]);
    result.old_page_count += std::popcount(result.mapped[i] & ~result.young[i]);
  }
}

void MarkYoung(AgeResult& result, uint64_t pages) {
  const auto count = [&] {
    uint64_t young = 0;
    for (const uint64_t word : result.young) young += std::popcount(word);
    return young;
  };
  const uint64_t before = count();
  SetPages(result.young, 0, pages);
  const uint64_t changed = count() - before;
  result.young_page_count += changed;
  // Less only if somebody took the huge leaf away since.
  result.old_page_count -= std::min(result.old_page_count, changed);
}

}  // namespace mmu
