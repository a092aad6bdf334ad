// Copies of a VM's counters, taken by reading memory only.

#ifndef MMU_CORE_VM_INSPECT_VM_STATS_H_
#define MMU_CORE_VM_INSPECT_VM_STATS_H_

#include <array>
#include <cstdint>

#include "absl/time/time.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/sync/lock_metrics.h"
#include "mmu_core/tlb/flush_metrics.h"

namespace mmu {

// STAT-01..14, one VM's.
struct VmStatsSnapshot {
  uint64_t remote_tlb_flush = 0;
  uint64_t remote_tlb_flush_requests = 0;
  uint64_t mmu_shadow_zapped = 0;
  uint64_t mmu_pte_write = 0;
  uint64_t mmu_pde_zapped = 0;
  uint64_t mmu_flooded = 0;
  uint64_t mmu_recycled = 0;
  uint64_t mmu_cache_miss = 0;
  uint64_t mmu_unsync = 0;
  uint64_t mmu_shadow_pages = 0;
  uint64_t pages_4k = 0;
  uint64_t pages_2m = 0;
  uint64_t pages_1g = 0;
  uint64_t nx_lpage_splits = 0;
  uint64_t max_mmu_rmap_size = 0;
  uint64_t max_mmu_page_hash_collisions = 0;

  // Counters that KVM does not have.
  uint64_t table_pages = 0;        // TDP tables in use, roots included
  uint64_t shadow_page_limit = 0;  // 0: the VM has no shadow MMU
  int64_t guest_memory_bytes = 0;  // sum of slot sizes
};

// The counters for the exporter. Arrays are indexed by the enums of labels.h.
struct MmuMetrics {
  LockMetrics lock;
  uint64_t rmap_lock_contended = 0;
  FlushMetrics flush;
  std::array<std::array<uint64_t, kSplitTriggers>, 2> splits{};  // [0] from 2m,
                                                                 // [1] from 1g
  std::array<uint64_t, kSplitFailures> split_failures{};
  std::array<uint64_t, 2> recoveries{};  // [0] to 2m, [1] to 1g
  uint64_t dirty_pages = 0;
  uint64_t harvested_pages = 0;
  uint64_t cleared_pages = 0;
  // Slots with pages that are sealed or in flight.
  uint64_t undelivered_slots = 0;
  uint64_t dirty_ring_entries = 0;       // of all vCPUs
  uint64_t dirty_ring_used_entries = 0;  // of these, not free
  uint64_t vcpus_waiting_for_ring = 0;   // for room in their rings
  uint64_t aged_young = 0;
  uint64_t aged_old = 0;
  LatencySnapshot split_chunk, dirty_log_start, dirty_log_seal, dirty_log_clear,
      aging;
  std::array<absl::Duration, kThrottleLimits> split_throttled{};
  VcpuStatsSnapshot vcpus;  // summed; has the fault latencies
};

}  // namespace mmu

#endif  // MMU_CORE_VM_INSPECT_VM_STATS_H_
