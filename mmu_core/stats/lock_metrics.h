// The cost of mmu_lock, by mode and by the operation that took it.

#ifndef MMU_CORE_STATS_LOCK_METRICS_H_
#define MMU_CORE_STATS_LOCK_METRICS_H_

#include <array>
#include <cstdint>

#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"

namespace mmu {

// A value: the totals of one (mode, op).
struct LockOpMetrics {
  uint64_t acquisitions = 0;  // exact; includes the one after each yield
  uint64_t contended = 0;     // exact; acquisitions that had to queue
  uint64_t yields = 0;        // exact
  LatencySnapshot wait;       // of contended acquisitions only
  // Time held: sampled for kFault (sync/lock_metrics_recorder.h), complete for
  // the other operations.
  LatencySnapshot hold;
};

// A value: a copy of one lock's totals, or the sum of several.
struct LockMetrics {
  std::array<std::array<LockOpMetrics, kLockOps>, kLockModes> ops;

  LockOpMetrics& at(LockMode mode, LockOp op) {
    return ops[static_cast<int>(mode)][static_cast<int>(op)];
  }
  const LockOpMetrics& at(LockMode mode, LockOp op) const {
    return ops[static_cast<int>(mode)][static_cast<int>(op)];
  }
};

}  // namespace mmu

#endif  // MMU_CORE_STATS_LOCK_METRICS_H_
