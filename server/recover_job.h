// Putting small mappings together to huge ones, piece by piece: a loop over
// mmu::Vm::RecoverHugePages that can be paced, watched and cancelled.

#ifndef SERVER_RECOVER_JOB_H_
#define SERVER_RECOVER_JOB_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mutex.h"
#include "mmu_core/vm/throttle.h"
#include "mmu_core/vm/throttle_pause.h"
#include "mmu_core/vm/vm.h"

namespace mmud {

// Works in pieces of the throttle's chunk; where memory can be mapped with
// 1 GiB, in pieces of at most 1 GiB, cut at multiples of 1 GiB, because only a
// whole gigabyte can become one mapping. Pieces are the safe points, and after
// each the job waits as its throttle says.
// Thread-safe. Must not outlive its VM, Progress and Cancel excepted.
class RecoverJob {
 public:
  // A value.
  struct Progress {
    int64_t total_bytes = 0;
    int64_t done_bytes = 0;
    mmu::Vm::Recovered recovered;
    mmu::MmuCost cost;
    // Sleep that each limit asked for; none for kLockHold, whose waits are in
    // `cost`.
    std::array<absl::Duration, mmu::kThrottleLimits> throttled{};
    bool cancelled = false;
  };

  // `ranges` are inside memslots, which stay as they are.
  RecoverJob(mmu::Vm& vm, const std::vector<mmu::GfnRange>& ranges,
             const mmu::Throttle& throttle = {});

  // Runs to the end on the calling thread; OK also when cancelled. Call once.
  absl::Status Run();
  void Cancel();
  Progress progress() const;
  const mmu::Throttle& throttle() const { return throttle_; }

 private:
  // Time that all vCPUs together have stood still.
  int64_t StallNanos() const;
  void Sleep(const mmu::ThrottlePause& pause);

  mmu::Vm& vm_;
  const mmu::Throttle throttle_;
  const std::vector<mmu::GfnRange> pieces_;

  mutable mmu::Mutex mu_;  // leaf
  mmu::CondVar cancelled_;
  Progress progress_ ABSL_GUARDED_BY(mu_);
};

// The ranges cut at multiples of so many pages.
std::vector<mmu::GfnRange> CutAt(const std::vector<mmu::GfnRange>& ranges,
                                 uint64_t pages);

}  // namespace mmud

#endif  // SERVER_RECOVER_JOB_H_
