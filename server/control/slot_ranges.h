// The memory that memslots cover.

#ifndef SERVER_CONTROL_SLOT_RANGES_H_
#define SERVER_CONTROL_SLOT_RANGES_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmud {

// The ranges of `slots`, which ascend by address; adjacent ones are joined.
std::vector<mmu::GfnRange> SlotRanges(
    const std::vector<mmu::MemslotInfo>& slots);
// mmu::CheckInside about `field`: GPA_OUT_OF_RANGE unless `range` lies within
// `slots`, as SlotRanges returns them.
absl::Status CheckInsideSlots(mmu::GfnRange range,
                              const std::vector<mmu::GfnRange>& slots,
                              absl::string_view field);

}  // namespace mmud

#endif  // SERVER_CONTROL_SLOT_RANGES_H_
