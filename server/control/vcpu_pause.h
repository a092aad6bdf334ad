// The pause of a VM's vCPUs, which ends by itself: whoever paused a guest and
// died does not leave it paused.

#ifndef SERVER_CONTROL_VCPU_PAUSE_H_
#define SERVER_CONTROL_VCPU_PAUSE_H_

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/vm/vm.h"
#include "server/base/wall_time.h"

namespace mmud {

// States: none -> paused (Extend) -> none (End, or EndIfExpired at its time).
// Nobody else pauses or resumes the vCPUs of that VM. Thread-safe. Must not
// outlive the VM.
class VcpuPause {
 public:
  // A value.
  struct State {
    mmu::MonotonicTime since;    // from when on the vCPUs stand still
    mmu::MonotonicTime expires;  // when they go on by themselves
    WallTime shown_since;        // `since`, as the clock showed it then
  };

  explicit VcpuPause(mmu::Vm& vm) : vm_(vm) {}

  // Pauses the vCPUs and waits until they stand still; they do for
  // `max_duration` from then on, or until the pause that there is ends, if that
  // is later.
  State Extend(absl::Duration max_duration);
  // Lets them go on. OK if they are not paused.
  void End();
  // None: they are not paused.
  absl::optional<State> Get() const;

  // Ends the pause if its time has come, and returns it. Waits for nothing.
  absl::optional<State> EndIfExpired(mmu::MonotonicTime now);

 private:
  mmu::Vm& vm_;

  // One Extend or End at a time. Outer of mu_ and of the VM's locks.
  mmu::Mutex control_mu_;

  // Outer of what Vm::ResumeVcpus takes.
  mutable mmu::Mutex mu_;
  // An Extend is between its first look at the pause and its last: the pause
  // does not expire meanwhile, or this happens:
  //
  //   1. Extend: pauses the vCPUs and waits for them
  //   2. EndIfExpired: the pause of before is over; lets them go on
  //   3. Extend: notes a pause of vCPUs that run
  bool extending_ ABSL_GUARDED_BY(mu_) = false;
  absl::optional<State> state_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_CONTROL_VCPU_PAUSE_H_
