// A copy of a VM's counters, taken by reading memory only.
// stats/counter_table.h describes the counters and how those of several VMs
// are added up.

#ifndef MMU_CORE_STATS_VM_STATS_H_
#define MMU_CORE_STATS_VM_STATS_H_

#include <array>
#include <cstdint>

#include "mmu_core/base/level.h"
#include "mmu_core/stats/flush_metrics.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/lock_metrics.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/stats/vcpu_stats_snapshot.h"
#include "mmu_core/stats/vm_counters.h"

namespace mmu {

// The counters of one MMU of a VM. A value.
struct MmuStatsSnapshot {
  std::array<uint64_t, 3> leafs{};  // by level: k4K, k2M, k1G
  uint64_t tables = 0;              // in use
  // [0] from 2M, [1] from 1G; by SplitTrigger.
  std::array<std::array<uint64_t, kSplitTriggers>, 2> splits{};
  // Pages that ageing looked at, by AgingLock; then [0] young, [1] old.
  std::array<std::array<uint64_t, 2>, kAgingLocks> aged{};
};

// A value: one VM's counters, or the sum of several. Arrays are indexed by the
// enums of stats/labels.h unless a comment says otherwise. The bases have the
// counters that are copied as they are: STAT-03..10, 13 and 14 of the shadow
// MMU, and those of the whole VM.
struct VmStatsSnapshot : ShadowNumbers<uint64_t>,
                         VmNumbers<uint64_t, LatencySnapshot> {
  using Live = VmCounters;  // the counters that a snapshot copies

  LockMetrics lock;
  std::array<uint64_t, kLockOps> lock_hold_nanos{};  // of both modes
  uint64_t rmap_lock_contended = 0;
  FlushMetrics flush;
  std::array<uint64_t, kTlbiKinds> tlbi{};  // all 0 without stage-2 tables

  std::array<MmuStatsSnapshot, kMmuKinds> mmus;
  // The mappings by size and the tables of all MMUs together. STAT-11.
  uint64_t pages_4k = 0;
  uint64_t pages_2m = 0;
  uint64_t pages_1g = 0;
  uint64_t table_pages = 0;

  uint64_t nx_lpage_splits = 0;  // STAT-12
  // Counters that KVM does not have.
  uint64_t shadow_page_limit = 0;   // 0: the VM has no shadow pages
  uint64_t guest_memory_bytes = 0;  // sum of slot sizes

  std::array<uint64_t, kSplitFailures> split_failures{};
  std::array<uint64_t, 2> recoveries{};  // [0] to 2M, [1] to 1G

  uint64_t undelivered_slots = 0;        // with pages sealed or in flight
  uint64_t dirty_ring_entries = 0;       // of all vCPUs
  uint64_t dirty_ring_used_entries = 0;  // of these, not free
  uint64_t vcpus_waiting_for_ring = 0;   // now, for room in a ring

  VcpuStatsSnapshot vcpus;  // of all vCPUs

  // Splits by all MMUs. `from` is k2M or k1G.
  uint64_t Splits(Level from, SplitTrigger trigger) const {
    uint64_t sum = 0;
    for (const MmuStatsSnapshot& mmu : mmus) {
      sum += mmu.splits[ToInt(from) - 2][static_cast<int>(trigger)];
    }
    return sum;
  }
};

}  // namespace mmu

#endif  // MMU_CORE_STATS_VM_STATS_H_
