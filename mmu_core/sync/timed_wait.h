// Waiting for a change with a deadline on the monotonic clock.
//
// absl::CondVar, absl::Mutex::AwaitWithTimeout and absl::Notification do not
// serve: up to the release in Debian 12, Abseil turns every timeout into a
// deadline of the wall clock, so a wait of 20 ms lasts an hour if the clock is
// set back by an hour.

#ifndef MMU_CORE_SYNC_TIMED_WAIT_H_
#define MMU_CORE_SYNC_TIMED_WAIT_H_

#include <algorithm>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"

namespace mmu {

// Waits until `changed` is notified, or until a little after `deadline`.
// Returns false, without waiting, if `deadline` has passed. Spurious wake-ups
// happen: wait in a loop over the condition.
inline bool WaitUntil(CondVar& changed, Mutex& mu, MonotonicTime deadline)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
  const absl::Duration left = deadline - MonotonicTime::Now();
  if (left <= absl::ZeroDuration()) return false;
  // The system's clocks cannot represent an endless wait.
  changed.WaitFor(mu,
                  absl::ToChronoNanoseconds(std::min(left, absl::Hours(1))));
  return true;
}

}  // namespace mmu

#endif  // MMU_CORE_SYNC_TIMED_WAIT_H_
