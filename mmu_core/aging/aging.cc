#include "mmu_core/aging/aging.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/check.h"

namespace mmu {

void AgeReach::Add(const AgeReach& other) {
  for (size_t i = 0; i < mmus.size(); ++i) {
    mmus[i].asked |= other.mmus[i].asked;
    mmus[i].skipped |= other.mmus[i].skipped;
    mmus[i].lock = std::max(mmus[i].lock, other.mmus[i].lock);
  }
  was_fast |= other.was_fast;
}

bool AgeReach::skipped_any() const {
  return std::any_of(mmus.begin(), mmus.end(),
                     [](const Mmu& mmu) { return mmu.skipped; });
}

AgingLock AgeReach::lock() const {
  AgingLock lock = AgingLock::kNone;
  for (const Mmu& mmu : mmus) lock = std::max(lock, mmu.lock);
  return lock;
}

AgeResult AgeResult::For(GfnRange range) {
  AgeResult result;
  result.start = range.start;
  result.young.resize(WordsFor(range.pages()));
  return result;
}

void CountPages(AgeResult& result) {
  MMU_CHECK(result.mapped.size() == result.young.size());
  result.young_page_count = 0;
  result.old_page_count = 0;
  for (size_t i = 0; i < result.young.size(); ++i) {
    result.young_page_count += CountBits(result.young[i]);
    result.old_page_count += CountBits(result.mapped[i] & ~result.young[i]);
  }
}

void MarkYoung(AgeResult& result, uint64_t pages) {
  MMU_CHECK(result.mapped.size() == result.young.size());
  for (uint64_t i = 0; i < WordsFor(pages); ++i) {
    result.young[i] |= result.mapped[i] & WordMask(i, 0, pages);
  }
  CountPages(result);
}

}  // namespace mmu
