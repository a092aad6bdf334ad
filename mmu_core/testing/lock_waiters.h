// Threads that wait for mmu_lock whenever a test looks at it.

#ifndef MMU_CORE_TESTING_LOCK_WAITERS_H_
#define MMU_CORE_TESTING_LOCK_WAITERS_H_

#include <cstddef>
#include <thread>
#include <vector>

#include "absl/types/optional.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/await.h"
#include "mmu_core/testing/lock_trace.h"

namespace mmu::testing {

// Each time the calling thread takes the lock in write mode, a further thread
// waits for it, until there have been `most`. Each takes the lock once.
class LockWaiters {
 public:
  LockWaiters(MmuLock& lock, size_t most) : lock_(lock) {
    trace_.emplace([this, most](const LockTrace::Event& event) {
      if (event.point == HookPoint::kWriteLocked && threads_.size() < most) {
        Add();
      }
    });
  }
  ~LockWaiters() { Join(); }
  LockWaiters(const LockWaiters&) = delete;
  LockWaiters& operator=(const LockWaiters&) = delete;

  // Returns when a further thread waits. REQUIRES: the caller holds the lock.
  void Add() {
    threads_.emplace_back(
        [this] { MmuWriteLocked held(lock_, LockOp::kNotifier); });
    Await("a thread waits for mmu_lock",
          [this] { return lock_.IsContended(); });
  }
  // The threads so far.
  size_t count() const { return threads_.size(); }
  // REQUIRES: Join was not called.
  const LockTrace& trace() const { return *trace_; }

  // No further thread comes, and all have ended. REQUIRES: the caller does not
  // hold the lock.
  void Join() {
    trace_.reset();
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }

 private:
  MmuLock& lock_;
  std::vector<std::thread> threads_;
  absl::optional<LockTrace> trace_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_LOCK_WAITERS_H_
