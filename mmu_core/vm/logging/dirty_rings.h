// The dirty rings of a VM's vCPUs: moving their entries into the slots' epochs,
// as user space does with KVM's rings, and resetting them, as
// KVM_RESET_DIRTY_RINGS does.
//
// The epoch protocol with rings. A seal harvests: each dirty entry is recorded
// in the open epoch of its slot and becomes collected. A clear acknowledges,
// then resets: each collected entry is freed and its page re-protected, whether
// or not this clear named the page. No write is lost by that: from its harvest
// until it is acknowledged, the page of a freed entry is in an epoch; a write
// after the reset makes a new entry. So
//
//   a writable page of a logged slot has an entry in a ring, or is in an epoch.
//
// Next: dirty/dirty_ring.h, which is one ring.

#ifndef MMU_CORE_VM_LOGGING_DIRTY_RINGS_H_
#define MMU_CORE_VM_LOGGING_DIRTY_RINGS_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/unflushed_resets.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// RESET (DL-43): frees the collected entries of all rings, each ring in order
// up to its first entry that is not collected, re-protects their pages (DL-15)
// and returns the number of entries. If there were any, flushes all TLBs,
// without slots_lock. Entries that name no page of a slot are freed and
// skipped. Ends early, with the count so far, once `stop_requested` returns
// true. vCPUs that wait for room continue. FAILED_PRECONDITION
// INVALID_DIRTY_LOG_MODE (EINVAL) without rings.
absl::StatusOr<uint64_t> ResetDirtyRings(
    VmCore& vm, absl::FunctionRef<bool()> stop_requested, MmuCost* cost)
    ABSL_LOCKS_EXCLUDED(vm.slots.slots_lock);

// The result of the first half of a RESET, and the argument of the second. Made
// by default for callers that may reset nothing. Move-only.
struct RingReset {
  uint64_t count = 0;  // freed entries; 0: there is nothing to finish
  UnflushedResets::Reset unflushed = nullptr;
};

// The two halves of a RESET that cannot be stopped, for callers that hold
// slots_lock already. The first frees and re-protects. The second, after
// slots_lock was dropped, flushes and wakes the vCPUs if the count is not 0.
// Until the second half, stale TLB entries may allow writes. Without rings
// there is nothing to finish.
//
// The end of a slot's log, too, frees what was harvested: vCPUs that wait for
// room go on even if no owner is left to clear.
RingReset ResetDirtyRingsLocked(VmCore& vm, MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock);
void FinishDirtyRingReset(VmCore& vm, RingReset reset, MmuCost* cost)
    ABSL_LOCKS_EXCLUDED(vm.slots.slots_lock);

}  // namespace mmu

#endif  // MMU_CORE_VM_LOGGING_DIRTY_RINGS_H_
