// The counters of one vCPU that are plain numbers or histograms.

#ifndef MMU_CORE_STATS_VCPU_COUNTERS_H_
#define MMU_CORE_STATS_VCPU_COUNTERS_H_

#include <atomic>
#include <cstdint>

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

// The names of the counters, once for both of their uses: where the vCPU counts
// (VcpuCounters), and in a copy (VcpuStatsSnapshot).
template <typename Number, typename Histogram>
struct VcpuNumbers {
  Number pf_mmio_spte_created{};
  Number pf_guest{};
  Number tlb_flush{};
  Number invlpg{};
  Number accesses{};
  Number writes{};
  Number dirty_pages{};  // clean -> dirty transitions by this vCPU
  // Write faults on an existing mapping that marked the page dirty. Most are
  // caused by dirty logging.
  Number dirty_log_faults{};
  Number ring_full_exits{};  // exits because of a full dirty ring
  // Two translations of one address were cached (stage 2, FEAT_BBM level 2).
  Number tlb_conflict_aborts{};
  Histogram fault_fast;  // sampled
  Histogram fault_slow;  // sampled
};

using VcpuCounters = VcpuNumbers<OwnedCounter, LatencyHistogram>;

}  // namespace mmu

#endif  // MMU_CORE_STATS_VCPU_COUNTERS_H_
