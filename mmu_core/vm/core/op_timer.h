// Times one operation on a VM: its wall time goes into the caller's MmuCost and
// into a histogram.

#ifndef MMU_CORE_VM_CORE_OP_TIMER_H_
#define MMU_CORE_VM_CORE_OP_TIMER_H_

#include <cstdint>

#include "absl/time/time.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/spin.h"

namespace mmu {

// Externally synchronised: belongs to the operation's thread.
class OpTimer {
 public:
  // Either may be null.
  OpTimer(MmuCost* cost, LatencyHistogram* histogram)
      : cost_(cost), histogram_(histogram), begin_(MonotonicNanos()) {}
  ~OpTimer() {
    const int64_t nanos = MonotonicNanos() - begin_;
    if (cost_ != nullptr) {
      own_.wall = absl::Nanoseconds(nanos);
      cost_->Add(own_);
    }
    if (histogram_ != nullptr) histogram_->Record(nanos);
  }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

  // For the functions that the operation calls.
  MmuCost* cost() { return &own_; }

 private:
  MmuCost* const cost_;
  LatencyHistogram* const histogram_;
  const int64_t begin_;
  MmuCost own_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_OP_TIMER_H_
