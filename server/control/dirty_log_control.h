// Switching a VM's dirty log on and off.

#ifndef SERVER_CONTROL_DIRTY_LOG_CONTROL_H_
#define SERVER_CONTROL_DIRTY_LOG_CONTROL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "server/control/managed_vm.h"

namespace mmud {

// A request to switch a log on.
struct DirtyLogStartRequest {
  mmu::DirtyLogStart start;  // without id and time, which the job sets
  // The pace at which huge pages are split before the log is switched on.
  // Unset: switching on splits them.
  absl::optional<mmu::Throttle> split_ahead;
};

// Number of huge pages that were split, by their size.
struct HugePageSplits {
  int64_t of_2m = 0;
  int64_t of_1g = 0;
};

struct StartedDirtyLog {
  mmu::DirtyLogView log;
  HugePageSplits splits;
  mmu::MmuCost cost;
};

// A job that splits the huge pages of `slots`, or of all writable slots if
// `slots` is empty. Null if the VM has none of these slots, since some may have
// been deleted after the start was checked; the start then fails with
// MEMSLOT_NOT_FOUND. The errors of mmu::Vm::MakeSplitJob.
absl::StatusOr<std::shared_ptr<mmu::SplitJob>> MakeSplitAhead(
    const std::vector<uint32_t>& slots, const mmu::Throttle& throttle,
    ManagedVm& vm);

// The work of the operation that StartDirtyLog returns: it splits huge pages at
// the caller's pace, so that switching on finds none left, and then switches
// on. Thread-safe. Must not outlive its VM.
class DirtyLogStartJob {
 public:
  enum class State : uint8_t { kSplitting, kProtecting, kDone, kGivenUp };

  // A value.
  struct Progress {
    State state = State::kProtecting;
    int64_t total_bytes = 0;  // of the split ahead
    int64_t done_bytes = 0;
    HugePageSplits splits;
    mmu::MmuCost cost;
  };

  // Makes the checks of mmu::Vm::CheckDirtyLogStart, so that a start is refused
  // before any work begins. Starts nothing. If the caller's own log is already
  // on, nothing is split.
  static absl::StatusOr<std::shared_ptr<DirtyLogStartJob>> Create(
      DirtyLogStartRequest request, ManagedVm& vm);

  // Called once. After an error, including that of Cancel, no log of this job
  // is on.
  absl::StatusOr<StartedDirtyLog> Run();
  // Ends a split at its next chunk. If switching on has begun, the log stays
  // on.
  void Cancel();

  const ManagedVm& vm() const { return vm_; }
  const std::string& owner() const { return start_.claim.owner; }
  Progress progress() const;

 private:
  DirtyLogStartJob(ManagedVm& vm, mmu::DirtyLogStart start,
                   std::shared_ptr<mmu::SplitJob> split)
      : vm_(vm),
        start_(std::move(start)),
        split_(std::move(split)),
        state_(split_ == nullptr ? State::kProtecting : State::kSplitting) {}

  absl::StatusOr<mmu::StartResult> StartNow(mmu::MmuCost* cost);
  absl::StatusOr<StartedDirtyLog> Work();
  bool cancelled() const;

  ManagedVm& vm_;
  mmu::DirtyLogStart start_;                    // Run sets its time
  const std::shared_ptr<mmu::SplitJob> split_;  // null: no split ahead

  mutable absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  State state_ ABSL_GUARDED_BY(mu_);
  // Set once switching on was tried.
  absl::optional<HugePageSplits> splits_ ABSL_GUARDED_BY(mu_);
  mmu::MmuCost cost_ ABSL_GUARDED_BY(mu_);
};

// As mmu::Vm::StopDirtyLog; its errors are about the VM.
struct StoppedDirtyLog {
  mmu::StopResult result;
  mmu::MmuCost cost;
};
absl::StatusOr<StoppedDirtyLog> StopDirtyLog(const mmu::DirtyLogStop& stop,
                                             ManagedVm& vm);

}  // namespace mmud

#endif  // SERVER_CONTROL_DIRTY_LOG_CONTROL_H_
