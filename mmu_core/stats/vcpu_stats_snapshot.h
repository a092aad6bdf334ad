// A copy of the counters of one vCPU, or their sum over several.
// stats/counter_table.h describes the counters.

#ifndef MMU_CORE_STATS_VCPU_STATS_SNAPSHOT_H_
#define MMU_CORE_STATS_VCPU_STATS_SNAPSHOT_H_

#include <array>
#include <cstdint>

#include "mmu_core/base/access.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/vcpu_counters.h"

namespace mmu {

// A value. STAT-20..28 under KVM's names, then the project's own. The base has
// the counters that are copied as they are.
struct VcpuStatsSnapshot : VcpuNumbers<uint64_t, LatencySnapshot> {
  using Live = VcpuCounters;  // the counters that a snapshot copies

  uint64_t pf_taken = 0;
  uint64_t pf_fixed = 0;
  uint64_t pf_emulate = 0;
  uint64_t pf_spurious = 0;
  uint64_t pf_fast = 0;

  // Faults without effect, after which the guest retried the access: a part of
  // pf_taken.
  uint64_t pf_retried = 0;
  uint64_t fault_errors = 0;
  // Faults without an error, by FaultResult and access. slow_faults: those that
  // the fast path, which takes no mmu_lock, did not handle.
  std::array<std::array<uint64_t, kAccessKinds>, kFaultResults> faults{};
  std::array<std::array<uint64_t, kAccessKinds>, kFaultResults> slow_faults{};
  // All faults, each counted once: by the MMU whose tables the access walked,
  // by FaultOutcome and by access.
  std::array<std::array<std::array<uint64_t, kAccessKinds>, kFaultOutcomes>,
             kMmuKinds>
      page_faults{};
  // By StallCause. kFlush, kInvalidation and kRingFull are exact, and kRingFull
  // includes the current wait; the others are estimated by sampling.
  std::array<uint64_t, kStallCauses> stall_nanos{};

  // Both functions walk the table of counters (stats/counter_table.h).
  void Add(const VcpuStatsSnapshot& other);
  // The counts since `earlier`, a snapshot of the same vCPUs.
  VcpuStatsSnapshot Since(const VcpuStatsSnapshot& earlier) const;
};

}  // namespace mmu

#endif  // MMU_CORE_STATS_VCPU_STATS_SNAPSHOT_H_
