// An event that happens once and can be waited for.

#ifndef SERVER_BASE_EVENT_H_
#define SERVER_BASE_EVENT_H_

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/sync/timed_wait.h"

namespace mmud {

// As absl::Notification, except for its timeouts: see
// mmu_core/sync/timed_wait.h. Thread-safe.
class Event {
 public:
  // Marks the event as happened. Calling it again changes nothing.
  void Set() {
    mmu::MutexLock lock(mu_);
    set_ = true;
    changed_.NotifyAll();
  }

  // Waits until Set is called, at most for `timeout`. Returns whether it was
  // called.
  bool WaitFor(absl::Duration timeout) {
    const mmu::MonotonicTime deadline = mmu::MonotonicTime::Now() + timeout;
    mmu::MutexLock lock(mu_);
    while (!set_) {
      if (!mmu::WaitUntil(changed_, mu_, deadline)) return false;
    }
    return true;
  }

 private:
  mmu::Mutex mu_;  // leaf
  mmu::CondVar changed_;
  bool set_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace mmud

#endif  // SERVER_BASE_EVENT_H_
