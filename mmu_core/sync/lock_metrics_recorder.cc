#include "mmu_core/sync/lock_metrics_recorder.h"

#include <atomic>
#include <cstdint>

namespace mmu {

void LockMetricsRecorder::CountYield(LockMode mode, LockOp op) {
  cells_[IndexOf(mode, op)].yields.fetch_add(1, std::memory_order_relaxed);
}

void LockMetricsRecorder::RecordWait(LockMode mode, LockOp op, int64_t nanos) {
  Cell& cell = cells_[IndexOf(mode, op)];
  cell.contended.fetch_add(1, std::memory_order_relaxed);
  cell.wait.Record(nanos);
}

void LockMetricsRecorder::RecordHold(LockMode mode, LockOp op, int64_t nanos,
                                     uint64_t weight) {
  cells_[IndexOf(mode, op)].hold.Record(nanos, weight);
}

LockMetrics LockMetricsRecorder::Snapshot() const {
  LockMetrics metrics;
  for (int mode = 0; mode < kLockModes; ++mode) {
    for (int op = 0; op < kLockOps; ++op) {
      const int index = mode * kLockOps + op;
      const Cell& cell = cells_[index];
      LockOpMetrics& out = metrics.ops[mode][op];
      out.acquisitions = acquisitions_.Sum(index);
      out.contended = cell.contended.load(std::memory_order_relaxed);
      out.yields = cell.yields.load(std::memory_order_relaxed);
      out.wait = cell.wait.Snapshot();
      out.hold = cell.hold.Snapshot();
    }
  }
  return metrics;
}

}  // namespace mmu
