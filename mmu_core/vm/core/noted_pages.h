// Pages that vCPUs have recorded as dirty outside of the dirty log's sets: in
// dirty rings, in the CPUs' own logs (PML), in companion bitmaps. Before the
// log is sealed, counted or ended they are moved into its open epoch.

#ifndef MMU_CORE_VM_CORE_NOTED_PAGES_H_
#define MMU_CORE_VM_CORE_NOTED_PAGES_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Makes all vCPUs drain their CPUs' logs: on return, every page written before
// the call is marked (DL-31). No effect without PML. Not under mmu_lock. `cost`
// may be null.
void SyncCpuDirtyLogs(VmCore& vm, MmuCost* cost);

// Records every dirty entry of every ring, and the pages in the companion
// bitmap of `slot` or of all slots (DL-46), in the open epochs of the slots.
// Drops entries of slots that no longer log. No effect in a VM without rings.
// May be called with or without slots_lock.
void HarvestDirtyRings(VmCore& vm,
                       absl::optional<uint32_t> slot = absl::nullopt)
    ABSL_LOCKS_EXCLUDED(vm.ring_harvest_mu);

// Harvests, then seals `log` like DirtyLog::Seal, with no other harvest in
// between: so an entry whose page is in the sealed epoch is collected, and a
// clear of that epoch finds it (RACE-25). Without rings it only seals.
absl::StatusOr<SealOutcome> HarvestAndSeal(VmCore& vm, DirtyLog& log,
                                           const LogCall& call,
                                           uint64_t acknowledged_epoch)
    ABSL_LOCKS_EXCLUDED(vm.ring_harvest_mu);

// Moves pages recorded so far in rings, CPUs' logs and MMUs into the open
// epochs. Returns the error of Mmu::CollectDirty. Not under mmu_lock. `cost`
// may be null.
absl::Status TakeInNotedPages(VmCore& vm, MmuCost* cost);

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_NOTED_PAGES_H_
