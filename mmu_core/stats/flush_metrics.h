// The costs of remote TLB flushes, by scope and by reason.

#ifndef MMU_CORE_STATS_FLUSH_METRICS_H_
#define MMU_CORE_STATS_FLUSH_METRICS_H_

#include <array>
#include <cstdint>

#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"

namespace mmu {

// A value: a copy of one VM's totals, or the sum of several.
struct FlushMetrics {
  // STAT-02: requested remote flushes; the sum of `requests`.
  uint64_t remote_tlb_flush_requests = 0;
  // STAT-01: those that interrupted at least one vCPU.
  uint64_t remote_tlb_flush = 0;

  // Indexed by static_cast<int> of the label.
  std::array<std::array<std::array<uint64_t, kFlushReasons>, kFlushScopes>,
             kMmuKinds>
      flushes{};  // by the MMU that issued them
  std::array<uint64_t, kFlushReasons> requests{};
  std::array<uint64_t, kFlushReasons> kicked{};       // vCPUs interrupted
  std::array<uint64_t, kFlushReasons> elided{};       // found to be unnecessary
  std::array<LatencySnapshot, kFlushScopes> seconds;  // until acknowledged

  // The flushes of all MMUs.
  uint64_t Flushes(FlushScope scope, FlushReason reason) const {
    uint64_t sum = 0;
    for (const auto& by_scope : flushes) {
      sum += by_scope[static_cast<int>(scope)][static_cast<int>(reason)];
    }
    return sum;
  }
};

}  // namespace mmu

#endif  // MMU_CORE_STATS_FLUSH_METRICS_H_
