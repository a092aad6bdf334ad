#include "mmu_core/vm/vcpu/fault_accounting.h"

#include "absl/time/time.h"
#include "mmu_core/stats/labels.h"

namespace mmu {

void FaultAccounting::CountTime(const PageFault& fault,
                                VcpuStats::FaultPath path) {
  const int64_t nanos = MonotonicNanos() - begin_;
  const int64_t lock_wait = absl::ToInt64Nanoseconds(cost_.lock_wait);
  (path == VcpuStats::FaultPath::kFast ? stats_.fault_fast : stats_.fault_slow)
      .Record(nanos, kSampling);
  stats_.AddStall(StallCause::kLock, lock_wait * kSampling);
  const int64_t rest = (nanos - lock_wait) * kSampling;
  if (fault.split_huge_page || fault.after_split) {
    stats_.AddStall(StallCause::kSplit, rest);
  } else if (fault.present && fault.kind == AccessKind::kWrite) {
    stats_.AddStall(StallCause::kWriteProtect, rest);
  }
}

}  // namespace mmu
