// The counters of one vCPU. Only its own thread writes them, so a bump is a
// load and a store; anybody may read them.

#ifndef MMU_CORE_STATS_VCPU_STATS_H_
#define MMU_CORE_STATS_VCPU_STATS_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "mmu_core/base/access.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"

namespace mmu {

// A number that one thread adds to and others read. All accesses are relaxed:
// it orders nothing.
class OwnedCounter {
 public:
  void Add(int64_t n = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + n,
                 std::memory_order_relaxed);
  }
  int64_t Get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

// A copy. STAT-20..28 under KVM's names, then the project's own.
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

  // Of pf_taken, those that came to nothing and that the guest tried again.
  uint64_t pf_retried = 0;
  uint64_t accesses = 0;
  uint64_t writes = 0;
  uint64_t dirty_pages = 0;  // clean -> dirty transitions by this vCPU
  // Write faults that made a page dirty whose mapping was there: without the
  // log, most would not have happened.
  uint64_t dirty_log_faults = 0;
  uint64_t ring_full_exits = 0;  // exits because of a full dirty ring
  uint64_t fault_errors = 0;
  std::array<std::array<uint64_t, kAccessKinds>, kFaultResults> faults{};
  std::array<int64_t, kStallCauses> stall_nanos{};  // estimated by sampling
  LatencySnapshot fault_fast;                       // sampled
  LatencySnapshot fault_slow;                       // sampled

  void Add(const VcpuStatsSnapshot& other);
  // What happened since `earlier`, a copy of the same vCPUs.
  VcpuStatsSnapshot Since(const VcpuStatsSnapshot& earlier) const;
};

// Written by the vCPU's thread, read by anybody.
class VcpuStats {
 public:
  // pf_taken, pf_fixed, pf_emulate, pf_spurious and pf_retried are sums over
  // `faults`.
  OwnedCounter pf_fast, pf_mmio_spte_created, pf_guest, tlb_flush, invlpg;
  OwnedCounter accesses, writes, dirty_pages, dirty_log_faults;
  OwnedCounter ring_full_exits, fault_errors;
  std::array<std::array<OwnedCounter, kAccessKinds>, kFaultResults> faults;
  std::array<OwnedCounter, kStallCauses> stall_nanos;
  LatencyHistogram fault_fast, fault_slow;

  VcpuStatsSnapshot Snapshot() const;
};

}  // namespace mmu

#endif  // MMU_CORE_STATS_VCPU_STATS_H_
