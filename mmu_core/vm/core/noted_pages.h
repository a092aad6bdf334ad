// Pages that vCPUs have noted as dirty, but not in the sets of the dirty log:
// in dirty rings, in the CPUs' own logs (PML), in companion bitmaps. Before the
// log is sealed, counted or ended they are taken into its open epoch.

#ifndef MMU_CORE_VM_CORE_NOTED_PAGES_H_
#define MMU_CORE_VM_CORE_NOTED_PAGES_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Has all vCPUs empty their CPUs' logs: when it returns, every page written
// before the call is marked (DL-31). Nothing to do without PML. Not under
// mmu_lock. `cost` may be null.
void SyncCpuDirtyLogs(VmCore& vm, MmuCost* cost);

// Records every dirty entry of every ring, and what the companion bitmap of
// `slot` has, or those of all slots (DL-46), in the open epochs of the slots.
// Entries of slots that do not log any more are dropped. Nothing to do for a VM
// without rings. May be called with slots_lock held or not.
void HarvestDirtyRings(VmCore& vm,
                       absl::optional<uint32_t> slot = absl::nullopt)
    ABSL_LOCKS_EXCLUDED(vm.ring_harvest_mu);

// Harvests, then seals `log`, as DirtyLog::Seal, with no other harvest in
// between: so an entry whose page is in the sealed epoch is collected, and a
// clear of that epoch finds it (RACE-25). Without rings just seals.
absl::StatusOr<SealOutcome> HarvestAndSeal(VmCore& vm, DirtyLog& log,
                                           const LogCall& call,
                                           uint64_t acknowledged_epoch)
    ABSL_LOCKS_EXCLUDED(vm.ring_harvest_mu);

// Takes into the open epochs what rings and CPUs' logs have noted so far. Not
// under mmu_lock. `cost` may be null.
void TakeInNotedPages(VmCore& vm, MmuCost* cost);

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_NOTED_PAGES_H_
