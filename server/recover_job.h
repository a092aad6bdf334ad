// Putting small mappings together to huge ones, piece by piece: a loop over
// mmu::Vm::RecoverHugePages that can be watched and cancelled.

#ifndef SERVER_RECOVER_JOB_H_
#define SERVER_RECOVER_JOB_H_

#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/vm.h"

namespace mmud {

// Works in pieces of at most 1 GiB, cut at multiples of 1 GiB, because only a
// whole gigabyte can become one mapping; pieces are the safe points.
// Thread-safe. Must not outlive its VM, Progress and Cancel excepted.
class RecoverJob {
 public:
  // A value.
  struct Progress {
    int64_t total_bytes = 0;
    int64_t done_bytes = 0;
    mmu::Vm::Recovered recovered;
    mmu::MmuCost cost;
    bool cancelled = false;
  };

  // `ranges` are inside memslots.
  RecoverJob(mmu::Vm& vm, const std::vector<mmu::GfnRange>& ranges);

  // Runs to the end on the calling thread; OK also when cancelled. Call once.
  absl::Status Run();
  void Cancel();
  Progress progress() const;

 private:
  mmu::Vm& vm_;
  const std::vector<mmu::GfnRange> pieces_;

  mutable absl::Mutex mu_;
  Progress progress_ ABSL_GUARDED_BY(mu_);
};

// The ranges cut at multiples of 1 GiB.
std::vector<mmu::GfnRange> CutAtGigabytes(
    const std::vector<mmu::GfnRange>& ranges);

}  // namespace mmud

#endif  // SERVER_RECOVER_JOB_H_
