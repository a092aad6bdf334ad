// The rule that a range which a caller names lies in the guest's memory.

#ifndef MMU_CORE_VM_CORE_RANGE_CHECK_H_
#define MMU_CORE_VM_CORE_RANGE_CHECK_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "mmu_core/base/gfn_range.h"

namespace mmu {

// OUT_OF_RANGE GPA_OUT_OF_RANGE about "range": no memslot has some page of it.
// Without an errno: the callers do what KVM has no call for.
absl::Status OutsideMemslots(GfnRange range);

// OutsideMemslots unless `range` lies within `memory`: ascending ranges, none
// of which touches another.
absl::Status CheckInside(GfnRange range, absl::Span<const GfnRange> memory);

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_RANGE_CHECK_H_
