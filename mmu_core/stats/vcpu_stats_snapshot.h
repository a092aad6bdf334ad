// A copy of the counters of one vCPU, or their sum over several.
// stats/counter_table.h describes the counters.

#ifndef MMU_CORE_STATS_VCPU_STATS_SNAPSHOT_H_
#define MMU_CORE_STATS_VCPU_STATS_SNAPSHOT_H_

#include <array>
#include <cstdint>

#include "mmu_core/base/access.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"

namespace mmu {

// A value. STAT-20..28 under KVM's names, then the project's own.
struct VcpuStatsSnapshot {
  uint64_t pf_taken = 0;
  uint64_t pf_fixed = 0;
  uint64_t pf_emulate = 0;
  uint64_t pf_spurious = 0;
  uint64_t pf_fast = 0;
  uint64_t pf_mmio_spte_created = 0;
  uint64_t pf_guest = 0;
  uint64_t tlb_flush = 0;
  uint64_t invlpg = 0;

  // Faults without effect, after which the guest retried the access: a part of
  // pf_taken.
  uint64_t pf_retried = 0;
  uint64_t accesses = 0;
  uint64_t writes = 0;
  uint64_t dirty_pages = 0;  // clean -> dirty transitions by this vCPU
  // Write faults on an existing mapping that marked the page dirty. Most are
  // caused by dirty logging.
  uint64_t dirty_log_faults = 0;
  uint64_t ring_full_exits = 0;  // exits because of a full dirty ring
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
  LatencySnapshot fault_fast;  // sampled
  LatencySnapshot fault_slow;  // sampled

  // Both functions walk the table of counters (stats/counter_table.h).
  void Add(const VcpuStatsSnapshot& other);
  // What happened since `earlier`, a copy of the same vCPUs.
  VcpuStatsSnapshot Since(const VcpuStatsSnapshot& earlier) const;
};

}  // namespace mmu

#endif  // MMU_CORE_STATS_VCPU_STATS_SNAPSHOT_H_
