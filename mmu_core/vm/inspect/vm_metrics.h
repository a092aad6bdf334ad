// Reading the counters of a VM. No function takes a lock that work may hold.

#ifndef MMU_CORE_VM_INSPECT_VM_METRICS_H_
#define MMU_CORE_VM_INSPECT_VM_METRICS_H_

#include <cstdint>
#include <vector>

#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/inspect/vm_stats.h"

namespace mmu {

// Vm::Stats, Vm::VcpuStats, Vm::Metrics.
VmStatsSnapshot StatsOf(const VmCore& vm);
std::vector<VcpuStatsSnapshot> VcpuStatsOf(const VmCore& vm);
MmuMetrics MetricsOf(const VmCore& vm);

// The Vm functions of the same names.
int VcpusWaitingForRing(const VmCore& vm);
absl::optional<MonotonicTime> WaitingForRingSince(const VmCore& vm);

}  // namespace mmu

#endif  // MMU_CORE_VM_INSPECT_VM_METRICS_H_
