#include "mmu_core/vm/age_sweep.h"

#include <algorithm>
#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"

namespace mmu {
namespace {

// Each page once, ascending.
std::vector<GfnRange> UnionOf(std::vector<GfnRange> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](GfnRange a, GfnRange b) { return a.start < b.start; });
  std::vector<GfnRange> merged;
  for (const GfnRange range : ranges) {
    if (range.empty()) continue;
    if (merged.empty() || merged.back().end < range.start) {
      merged.push_back(range);
    } else {
      merged.back().end = std::max(merged.back().end, range.end);
    }
  }
  return merged;
}

}  // namespace

AgeSweep::AgeSweep(Vm& vm, std::vector<GfnRange> ranges, AgeMode mode,
                   MissingSlots missing)
    : vm_(vm),
      mode_(mode),
      missing_(missing),
      ranges_(UnionOf(std::move(ranges))) {
  if (!done()) at_ = ranges_[0].start;
}

absl::StatusOr<AgeSweep::Piece> AgeSweep::Next(MmuCost* cost) {
  MMU_CHECK(!done());
  const Gfn block_end = RoundDown(at_, Level::k1G) + PagesPer(Level::k1G);
  const GfnRange pages = {at_, std::min(block_end, ranges_[next_].end)};
  absl::StatusOr<AgeResult> result =
      vm_.Age(pages, mode_, cost, young_until_, missing_);
  if (!result.ok()) return result.status();
  young_until_ = result->young_until;
  at_ = pages.end;
  if (at_ == ranges_[next_].end && ++next_ < ranges_.size()) {
    at_ = ranges_[next_].start;
  }
  return Piece{pages, *std::move(result)};
}

}  // namespace mmu
