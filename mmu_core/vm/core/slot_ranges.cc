#include "mmu_core/vm/core/slot_ranges.h"

#include <algorithm>

#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/vm/core/range_check.h"

namespace mmu {

absl::Status CheckCovered(const MemslotSet& set, GfnRange range) {
  if (range.empty()) {
    return MakeError(
        absl::StatusCode::kOutOfRange, {Reason::kInvalidRange, "range", 0},
        Format("the range from gfn 0x%x to 0x%x is empty; name at least one "
               "page",
               range.start.value(), range.end.value()));
  }
  Gfn next = range.start;
  for (const Memslot* slot : set.SlotsIn(range)) {
    if (slot->base_gfn > next) break;
    next = std::max(next, slot->range().end);
  }
  return next >= range.end ? absl::OkStatus() : OutsideMemslots(range);
}

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

}  // namespace mmu
