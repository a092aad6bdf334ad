// Waiting for a change until a point of the monotonic clock.
//
// Not absl::CondVar, absl::Mutex::AwaitWithTimeout or absl::Notification: as of
// the release that Debian 12 has, Abseil turns every timeout into a deadline of
// the wall clock, so that a wait of 20 ms lasts an hour when the clock is set
// back by one.

#ifndef MMU_CORE_SYNC_TIMED_WAIT_H_
#define MMU_CORE_SYNC_TIMED_WAIT_H_

#include <algorithm>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"

namespace mmu {

// Waits until `changed` is notified, or a little longer than `deadline`. False:
// `deadline` has passed, and this did not wait. Returns for no reason at
// times: wait in a loop over the condition.
inline bool WaitUntil(CondVar& changed, Mutex& mu, MonotonicTime deadline)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
  const absl::Duration left = deadline - MonotonicTime::Now();
  if (left <= absl::ZeroDuration()) return false;
  // An endless wait is none for the system's clocks.
  changed.WaitFor(mu,
                  absl::ToChronoNanoseconds(std::min(left, absl::Hours(1))));
  return true;
}

}  // namespace mmu

#endif  // MMU_CORE_SYNC_TIMED_WAIT_H_
