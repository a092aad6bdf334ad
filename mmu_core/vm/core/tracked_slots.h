// The memslots of a VM as its working set tracks them.

#ifndef MMU_CORE_VM_CORE_TRACKED_SLOTS_H_
#define MMU_CORE_VM_CORE_TRACKED_SLOTS_H_

#include <vector>

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/working_set/slot_maps.h"

namespace mmu {

struct VmCore;

// The valid memslots of address space 0 that overlap `range`, ascending. Takes
// an RCU section for itself.
std::vector<TrackedSlot> TrackedSlotsIn(const VmCore& vm, GfnRange range);

// Whether `slots`, as TrackedSlotsIn returns them, contain this one.
bool ContainsSlot(const std::vector<TrackedSlot>& slots,
                  const TrackedSlot& slot);

// Whether the VM has `slot`, here or elsewhere, valid or about to be changed.
// Takes an RCU section for itself.
bool StillHasSlot(const VmCore& vm, const TrackedSlot& slot);

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_TRACKED_SLOTS_H_
