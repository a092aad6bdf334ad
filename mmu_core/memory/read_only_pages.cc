#include "mmu_core/memory/read_only_pages.h"

#include <iterator>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"

namespace mmu {

void ReadOnlyPages::RemoveLocked(uint64_t first, uint64_t end) {
  auto it = runs_.upper_bound(first);
  if (it != runs_.begin()) --it;  // may begin before `first` and reach into it
  while (it != runs_.end() && it->first < end) {
    const auto [run_first, run_end] = *it;
    if (run_end <= first) {
      ++it;
      continue;
    }
    it = runs_.erase(it);
    if (run_first < first) runs_.emplace(run_first, first);
    if (run_end > end) runs_.emplace(end, run_end);
  }
}

void ReadOnlyPages::Add(uint64_t first, uint64_t end) {
  MMU_CHECK(first < end);
  MutexLock lock(mu_);
  RemoveLocked(first, end);
  auto next = runs_.lower_bound(end);
  if (next != runs_.end() && next->first == end) {
    end = next->second;
    next = runs_.erase(next);
  }
  if (next != runs_.begin() && std::prev(next)->second == first) {
    std::prev(next)->second = end;
  } else {
    runs_.emplace(first, end);
  }
  empty_.store(false, std::memory_order_relaxed);
}

void ReadOnlyPages::Remove(uint64_t first, uint64_t end) {
  MMU_CHECK(first < end);
  MutexLock lock(mu_);
  RemoveLocked(first, end);
  empty_.store(runs_.empty(), std::memory_order_relaxed);
}

bool ReadOnlyPages::Contains(uint64_t page) const {
  MutexLock lock(mu_);
  const auto next = runs_.upper_bound(page);
  return next != runs_.begin() && std::prev(next)->second > page;
}

Level ReadOnlyPages::UniformLevel(uint64_t page, Level max) const {
  MutexLock lock(mu_);
  for (Level level = max; level > Level::k4K; level = ChildOf(level)) {
    const uint64_t first = page & ~(PagesPer(level) - 1);
    const uint64_t end = first + PagesPer(level);
    // The last run that begins before the block's end; no later one matters.
    const auto next = runs_.lower_bound(end);
    if (next == runs_.begin()) return level;
    const auto [run_first, run_end] = *std::prev(next);
    if (run_end <= first || (run_first <= first && run_end >= end)) {
      return level;
    }
  }
  return Level::k4K;
}

}  // namespace mmu
