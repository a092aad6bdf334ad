#include "mmu_core/working_set/working_set_snapshot.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/check.h"
#include "mmu_core/working_set/generation_age.h"

namespace mmu {
namespace {

// From `then` to `now`. A reader may have read the clock before the writer did.
int64_t Since(int64_t then, int64_t now) {
  return std::max<int64_t>(0, now - then);
}

// Null if no generation has ended.
const Generation* NewestEnded(const std::vector<Generation>& generations) {
  for (const Generation& generation : generations) {
    if (generation.ended_at_nanos.has_value()) return &generation;
  }
  return nullptr;
}

// The bin of generations[age].
WorkingSetBin BinOf(const std::vector<Generation>& generations, size_t age,
                    uint64_t pages, int64_t now) {
  const Generation& generation = generations[age];
  WorkingSetBin bin;
  bin.sequence = generation.sequence;
  bin.pages = pages;
  if (generation.ended_at_nanos.has_value()) {
    bin.min_age_nanos = Since(*generation.ended_at_nanos, now);
  }
  if (age + 1 < generations.size()) {
    bin.max_age_nanos = Since(generations[age + 1].began_at_nanos, now);
  }
  return bin;
}

// `newest_end`: the end of the newest ended generation, if one has ended.
WorkingSetWindow WindowOf(const WorkingSetSnapshot& snapshot, int64_t length,
                          absl::optional<int64_t> newest_end) {
  WorkingSetWindow window;
  window.window_nanos = length;
  if (snapshot.generations.empty()) return window;
  const auto ended_before = [&](const Generation& generation) {
    return newest_end.has_value() && generation.ended_at_nanos.has_value() &&
           *newest_end - *generation.ended_at_nanos >= length;
  };
  for (size_t age = 0; age < snapshot.bins.size(); ++age) {
    if (ended_before(snapshot.generations[age])) break;
    window.pages += snapshot.bins[age].pages;
  }
  window.complete = ended_before(snapshot.generations.back());
  return window;
}

}  // namespace

WorkingSetSnapshot MakeWorkingSetSnapshot(
    std::vector<Generation> generations, const AgeHistogram& pages,
    int64_t now_nanos, absl::Span<const int64_t> windows_nanos) {
  MMU_CHECK(generations.size() <= kKeptGenerations);
  WorkingSetSnapshot snapshot;
  snapshot.generations = std::move(generations);
  snapshot.bins.reserve(snapshot.generations.size());
  uint64_t in_bins = 0;
  for (size_t age = 0; age < snapshot.generations.size(); ++age) {
    snapshot.bins.push_back(
        BinOf(snapshot.generations, age, pages[age], now_nanos));
    in_bins += pages[age];
  }
  snapshot.never_young_pages = pages[kNeverYoung];

  absl::optional<int64_t> newest_end;
  if (const Generation* ended = NewestEnded(snapshot.generations)) {
    newest_end = ended->ended_at_nanos;
    snapshot.staleness_nanos = Since(*newest_end, now_nanos);
    const uint64_t mapped = ended->totals.mapped_pages;
    snapshot.mapped_never_young_pages = mapped - std::min(mapped, in_bins);
  }
  snapshot.windows.reserve(windows_nanos.size());
  for (const int64_t length : windows_nanos) {
    snapshot.windows.push_back(WindowOf(snapshot, length, newest_end));
  }
  return snapshot;
}

}  // namespace mmu
