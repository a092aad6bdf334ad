#include "mmu_core/vm/core/range_check.h"

#include <algorithm>

#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"

namespace mmu {

absl::Status OutsideMemslots(GfnRange range) {
  return MakeError(
      absl::StatusCode::kOutOfRange, {Reason::kGpaOutOfRange, "range", 0},
      Format("the range is %d bytes from gpa %d; not all of it lies within "
             "memslots; see the VM's list of memslots",
             range.bytes(), ToGpa(range.start).value()));
}

absl::Status CheckInside(GfnRange range, absl::Span<const GfnRange> memory) {
  const auto after =
      std::upper_bound(memory.begin(), memory.end(), range.start,
                       [](Gfn gfn, GfnRange part) { return gfn < part.start; });
  if (after != memory.begin() && (after - 1)->Contains(range)) {
    return absl::OkStatus();
  }
  return OutsideMemslots(range);
}

}  // namespace mmu
