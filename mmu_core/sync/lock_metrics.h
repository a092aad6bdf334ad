// The costs of mmu_lock, by mode and by the operation that took it.

#ifndef MMU_CORE_SYNC_LOCK_METRICS_H_
#define MMU_CORE_SYNC_LOCK_METRICS_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/sharded_counter.h"

namespace mmu {

// A value: the totals of one (mode, op).
struct LockOpMetrics {
  uint64_t acquisitions = 0;  // exact; includes the one after each yield
  uint64_t contended = 0;     // exact; acquisitions that had to queue
  uint64_t yields = 0;        // exact
  LatencySnapshot wait;       // of contended acquisitions only
  // Time held. Sampled for kFault (see LockMetricsRecorder), complete for other
  // operations.
  LatencySnapshot hold;

  void Add(const LockOpMetrics& other);
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
  void Add(const LockMetrics& other);
};

// Of a thread's uncontended kFault acquisitions, one in this many has its hold
// time measured and counts for all of them. Every contended acquisition is
// measured.
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

#endif  // MMU_CORE_SYNC_LOCK_METRICS_H_
