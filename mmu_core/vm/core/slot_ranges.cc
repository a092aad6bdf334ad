#include "mmu_core/vm/core/slot_ranges.h"

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/memslot.h"

namespace mmu {

bool Covered(const MemslotSet& set, GfnRange range) {
  Gfn next = range.start;
  for (const Memslot* slot : set.SlotsIn(range)) {
    if (slot->base_gfn > next) return false;
    next = std::max(next, slot->range().end);
  }
  return next >= range.end;
}

absl::Status RangeError(GfnRange range) {
  return MakeError(
      absl::StatusCode::kOutOfRange, {Reason::kInvalidRange, "range", EINVAL},
      absl::StrCat("gfns 0x", absl::Hex(range.start.value()), " to 0x",
                   absl::Hex(range.end.value()),
                   " are not all inside memslots; see the VM's list of "
                   "memslots"));
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
