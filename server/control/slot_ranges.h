// The memory that a VM's memslots cover.

#ifndef SERVER_CONTROL_SLOT_RANGES_H_
#define SERVER_CONTROL_SLOT_RANGES_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/vm/core/vm_config.h"
#include "server/control/managed_vm.h"

namespace mmud {

// The ranges of all memslots, ascending, adjacent ones joined.
std::vector<mmu::GfnRange> SlotRanges(const ManagedVm& vm);
// Of `slots`, which ascend by address, the first with memory in one of
// `ranges`; null if none has.
const mmu::MemslotInfo* FirstSlotIn(const std::vector<mmu::MemslotInfo>& slots,
                                    const std::vector<mmu::GfnRange>& ranges);
// GPA_OUT_OF_RANGE unless `range` lies within `slots`, as SlotRanges returns
// them.
absl::Status CheckInsideSlots(mmu::GfnRange range,
                              const std::vector<mmu::GfnRange>& slots,
                              absl::string_view field);

}  // namespace mmud

#endif  // SERVER_CONTROL_SLOT_RANGES_H_
