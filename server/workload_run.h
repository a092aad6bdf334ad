// One workload of a VM, from StartWorkload until its vCPUs are idle.

#ifndef SERVER_WORKLOAD_RUN_H_
#define SERVER_WORKLOAD_RUN_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/sync/mutex.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/workload.h"
#include "server/base/wall_time.h"

namespace mmud {

// States: new -> running (Start) -> finished (Start failed, or RunToEnd). A VM
// has no other workload before this one is finished.
// Thread-safe. Must not outlive the VM, except for finished() and, once it is
// finished, Progress().
class WorkloadRun {
 public:
  enum class Stop : uint8_t { kNot, kRequested, kCancelled };

  // `total_access_count`: of all vCPUs at the end; 0 if unknown.
  WorkloadRun(mmu::Vm& vm, int64_t total_access_count)
      : vm_(vm), total_access_count_(total_access_count) {}

  // Starts the vCPUs, as mmu::Vm::StartWorkload. After an error the run is
  // finished; if StopNow was called before, it ends at once. Call once.
  absl::Status Start(mmu::WorkloadOptions options,
                     absl::FunctionRef<absl::Status()> confirm);

  // Waits until the vCPUs are idle, takes the final figures and finishes.
  // REQUIRES: Start was OK, or has called `confirm`. Call once.
  void RunToEnd();

  // Ends it early and waits until the vCPUs are idle. Also before Start, which
  // then meets it. The first reason counts. Not from within `confirm`.
  void StopNow(Stop why);

  // Waits until RunToEnd is through, which it is soon after StopNow.
  void AwaitFinished() const;
  bool finished() const;

  // None before it is finished.
  absl::optional<WallTime> end_time() const;
  Stop stop_reason() const;
  mmu::WorkloadProgress Progress() const;
  int64_t total_access_count() const { return total_access_count_; }

 private:
  mmu::WorkloadProgress Read() const;
  void Finish(mmu::WorkloadProgress progress);

  mmu::Vm& vm_;
  const int64_t total_access_count_;

  // One of Start, StopNow and the end at a time. So a stop comes before the
  // vCPUs are started, which Start sees, or it ends them; and it never ends
  // those of the next workload, which waits for this one to finish. Outer of
  // the VM's locks.
  mmu::Mutex control_mu_;

  mutable mmu::Mutex mu_;  // leaf
  mutable mmu::CondVar ended_;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  absl::optional<WallTime> end_time_ ABSL_GUARDED_BY(mu_);
  Stop stop_ ABSL_GUARDED_BY(mu_) = Stop::kNot;
  mmu::WorkloadProgress final_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_WORKLOAD_RUN_H_
