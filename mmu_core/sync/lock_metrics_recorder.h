// Records the acquisitions, waits and holds of an mmu_lock.

#ifndef MMU_CORE_SYNC_LOCK_METRICS_RECORDER_H_
#define MMU_CORE_SYNC_LOCK_METRICS_RECORDER_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/lock_metrics.h"
#include "mmu_core/stats/sharded_counter.h"

namespace mmu {

// One in this many uncontended kFault acquisitions of a thread has its hold
// time taken, and counts as so many. Contended ones are all taken.
inline constexpr uint32_t kFaultHoldSampling = 64;

// Collects the totals of one lock. Counting `acquisitions` touches no cache
// line that other threads write. The other totals are written only when the
// lock was contended or its hold time was measured. Thread-safe.
class LockMetricsRecorder {
 public:
  void CountAcquisition(LockMode mode, LockOp op) {
    acquisitions_.Add(IndexOf(mode, op));
  }
  void CountYield(LockMode mode, LockOp op);
  void RecordWait(LockMode mode, LockOp op, int64_t nanos);
  void RecordHold(LockMode mode, LockOp op, int64_t nanos, uint64_t weight);

  LockMetrics Snapshot() const;

 private:
  static constexpr int kCells = kLockModes * kLockOps;
  static constexpr int IndexOf(LockMode mode, LockOp op) {
    return static_cast<int>(mode) * kLockOps + static_cast<int>(op);
  }

  struct Cell {
    std::atomic<uint64_t> contended{0};
    std::atomic<uint64_t> yields{0};
    LatencyHistogram wait;
    LatencyHistogram hold;
  };

  ShardedCounters<kCells> acquisitions_;
  std::array<Cell, kCells> cells_;
};

}  // namespace mmu

#endif  // MMU_CORE_SYNC_LOCK_METRICS_RECORDER_H_
