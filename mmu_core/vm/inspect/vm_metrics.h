// Reading the counters of a VM, and of the process. No function takes a lock
// that work may hold.

#ifndef MMU_CORE_VM_INSPECT_VM_METRICS_H_
#define MMU_CORE_VM_INSPECT_VM_METRICS_H_

#include <cstdint>
#include <vector>

#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/process_stats.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/stats/vm_stats.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Vm::Stats, Vm::VcpuStats, Vm::ProcessStats.
VmStatsSnapshot StatsOf(const VmCore& vm);
std::vector<VcpuStatsSnapshot> VcpuStatsOf(const VmCore& vm);
ProcessStatsSnapshot StatsOfProcess();

// The Vm functions of the same names.
uint64_t MappedPages(const VmCore& vm, Level level);
int VcpusWaitingForRing(const VmCore& vm);
absl::optional<MonotonicTime> WaitingForRingSince(const VmCore& vm);

}  // namespace mmu

#endif  // MMU_CORE_VM_INSPECT_VM_METRICS_H_
