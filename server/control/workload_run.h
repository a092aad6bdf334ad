// One workload of a VM, from StartWorkload until its vCPUs are idle.

#ifndef SERVER_CONTROL_WORKLOAD_RUN_H_
#define SERVER_CONTROL_WORKLOAD_RUN_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/vm/vm.h"
#include "server/base/wall_time.h"

namespace mmud {

// The constant properties of a workload. A value.
struct WorkloadDescription {
  std::string name;  // "vms/alpha/workloads/UUID"
  // The request, in the form of the code that starts and describes workloads
  // (server/convert/workload_convert.h). This code does not parse it.
  std::string asked;
};

// States: new -> running (Start) -> finished (Start failed, or RunToEnd). A VM
// has no other workload before this one is finished. Thread-safe. Must not
// outlive the VM, except for StopNow, finished() and, once it is finished,
// progress().
class WorkloadRun {
 public:
  enum class State : uint8_t { kRunning, kCompleted, kStopped, kFailed };

  // The figures so far, or of the whole run. A value.
  struct Progress {
    State state = State::kRunning;
    absl::Status error;            // the reason of kFailed
    mmu::VcpuStatsSnapshot stats;  // since the start, all vCPUs
    absl::Duration running_time;   // by the monotonic clock, pauses included
    absl::optional<WallTime> end_time;  // set once it has ended
  };

  WorkloadRun(mmu::Vm& vm, WorkloadDescription description)
      : vm_(vm), description_(std::move(description)) {}

  const WorkloadDescription& description() const { return description_; }
  WallTime start_time() const { return start_time_; }

  // Starts the vCPUs, as mmu::Vm::StartWorkload. After an error the run is
  // finished. If StopNow was called before, the run ends at once. Called once.
  absl::Status Start(mmu::WorkloadOptions options,
                     absl::FunctionRef<absl::Status()> confirm);

  // Waits until the vCPUs are idle, takes the final figures, calls `let_go`
  // with them and finishes. `let_go` releases resources, above all the use of
  // the VM: they are free for every thread that sees the run finished. `let_go`
  // must not call this object. REQUIRES: Start was OK, or has called `confirm`.
  // Called once.
  void RunToEnd(absl::FunctionRef<void(const Progress& end)> let_go);

  // Ends the run early and waits until the vCPUs are idle. If called before
  // Start, Start ends the run. Not called from within `confirm`.
  void StopNow();
  bool stop_requested() const;

  // Waits until RunToEnd has finished, which is soon after StopNow.
  void AwaitFinished() const;
  bool finished() const;

  Progress progress() const;

 private:
  Progress Read() const;
  void Finish(Progress end);

  mmu::Vm& vm_;
  const WorkloadDescription description_;
  const WallTime start_time_ = WallTime::Now();

  // Held by Start, StopNow and the end, one at a time. So a stop either comes
  // before the vCPUs are started, and Start sees it, or it ends them. It never
  // stops the vCPUs of the next workload, which waits for this one to finish.
  // As long as this lock is held and the run is not finished, the VM exists.
  // Outer to the VM's locks.
  mmu::Mutex control_mu_;

  mutable mmu::Mutex mu_;  // leaf
  mutable mmu::CondVar ended_;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  bool stop_requested_ ABSL_GUARDED_BY(mu_) = false;
  Progress end_ ABSL_GUARDED_BY(mu_);  // set once it is finished
};

// "running", "completed", "stopped" or "failed".
const char* ToString(WorkloadRun::State state);

}  // namespace mmud

#endif  // SERVER_CONTROL_WORKLOAD_RUN_H_
