// The counters of one VM that several threads write: those of each of its MMUs,
// and those that belong to no MMU. All are relaxed: they order nothing.

#ifndef MMU_CORE_STATS_VM_COUNTERS_H_
#define MMU_CORE_STATS_VM_COUNTERS_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "mmu_core/base/level.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/mmu_counters.h"

namespace mmu {

// The names of the counters that belong to no MMU, once for both of their uses:
// where they are counted (VmCounters), and in a copy (VmStatsSnapshot).
template <typename Number, typename Histogram>
struct VmNumbers {
  Number harvested_pages{};
  Number cleared_pages{};
  std::array<Number, kThrottleLimits> split_throttled_nanos{};

  Histogram split_chunk;
  Histogram dirty_log_start;
  Histogram dirty_log_seal;
  Histogram dirty_log_clear;
  Histogram aging;
};

// Thread-safe.
class VmCounters : public VmNumbers<std::atomic<uint64_t>, LatencyHistogram> {
 public:
  // The counters of the MMU of this kind. They stay 0 if the VM has none.
  MmuCounters& of(MmuKind kind) { return mmus_[static_cast<int>(kind)]; }
  const MmuCounters& of(MmuKind kind) const {
    return mmus_[static_cast<int>(kind)];
  }

  // The sum over the MMUs.
  uint64_t Leafs(Level level) const {
    uint64_t sum = 0;
    for (const MmuCounters& mmu : mmus_) sum += mmu.Leafs(level);
    return sum;
  }

 private:
  std::array<MmuCounters, kMmuKinds> mmus_;
};

}  // namespace mmu

#endif  // MMU_CORE_STATS_VM_COUNTERS_H_
