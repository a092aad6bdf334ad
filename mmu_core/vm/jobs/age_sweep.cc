#include "mmu_core/vm/jobs/age_sweep.h"

#include <algorithm>
#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"
#include "mmu_core/vm/core/slot_ranges.h"
#include "mmu_core/vm/jobs/age_range.h"

namespace mmu {
AgeSweep::AgeSweep(VmCore& vm, std::vector<GfnRange> ranges, AgeMode mode,
                   MissingSlots missing, const AgeOptions& options)
    : vm_(vm),
      mode_(mode),
      missing_(missing),
      options_(options),
      ranges_(UnionOf(std::move(ranges))) {
  if (!done()) at_ = ranges_[0].start;
}

absl::StatusOr<AgeSweep::Piece> AgeSweep::Next(MmuCost* cost) {
  MMU_CHECK(!done());
  const Gfn block_end = RoundDown(at_, Level::k1G) + PagesPer(Level::k1G);
  const GfnRange pages = {at_, std::min(block_end, ranges_[next_].end)};
  absl::StatusOr<AgeResult> result =
      AgeRange(vm_, pages, mode_, cost, young_until_, missing_, options_);
  if (!result.ok()) return result.status();
  young_until_ = result->young_until;
  at_ = pages.end;
  if (at_ == ranges_[next_].end && ++next_ < ranges_.size()) {
    at_ = ranges_[next_].start;
  }
  return Piece{pages, *std::move(result)};
}

}  // namespace mmu
