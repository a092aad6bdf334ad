// The pause of a VM's vCPUs. It ends by itself, so that a client that paused a
// guest and died does not leave it paused.

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
// No other code pauses or resumes the vCPUs of that VM. Thread-safe. Must not
// outlive the VM.
class VcpuPause {
 public:
  // A value.
  struct State {
    mmu::MonotonicTime since;    // start of the vCPUs' standstill
    mmu::MonotonicTime expires;  // end of the pause, unless it is extended
    WallTime shown_since;        // `since`, by the wall clock at that time
  };

  explicit VcpuPause(mmu::Vm& vm) : vm_(vm) {}

  // Pauses the vCPUs and waits until they stand still. The pause ends
  // `max_duration` after that, or at the end of the existing pause if that is
  // later.
  State Extend(absl::Duration max_duration);
  // Resumes the vCPUs. OK if they are not paused.
  void End();
  // The pause; nullopt if the vCPUs are not paused.
  absl::optional<State> Get() const;

  // Ends the pause if its time is over, and returns it. Waits for nothing.
  absl::optional<State> EndIfExpired(mmu::MonotonicTime now);

 private:
  mmu::Vm& vm_;

  // One Extend or End at a time. Outer of mu_ and of the VM's locks.
  mmu::Mutex control_mu_;

  // Outer to the locks that Vm::ResumeVcpus takes.
  mutable mmu::Mutex mu_;
  // An Extend is between its first and its last look at the pause. The pause
  // does not expire meanwhile; otherwise this could happen:
  //
  //   1. Extend: pauses the vCPUs and waits for them
  //   2. EndIfExpired: the pause of before is over; lets them go on
  //   3. Extend: notes a pause of vCPUs that run
  bool extending_ ABSL_GUARDED_BY(mu_) = false;
  absl::optional<State> state_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_CONTROL_VCPU_PAUSE_H_
