// A mutex that Clang's thread-safety analysis and ThreadSanitizer both
// understand.
//
// It wraps std::mutex rather than absl::Mutex: Debian's Abseil is compiled
// without TSan, so ThreadSanitizer would not see the order that absl::Mutex
// establishes. No such mutex may be held while waiting for mmu_lock, except
// where mmu_core/LOCKING.md says so.

#ifndef MMU_CORE_BASE_MUTEX_H_
#define MMU_CORE_BASE_MUTEX_H_

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/check.h"

namespace mmu {

namespace mutex_internal {
#ifdef NDEBUG
class Holder {
 public:
  void Set() {}
  void Clear() {}
  bool IsThisThread() const { return true; }
};
#else
// Has a different address in each thread.
inline thread_local constinit char this_thread = 0;

// The thread that holds a mutex. Relaxed: a thread asks only whether it is
// itself, and has then written the value itself.
class Holder {
 public:
  void Set() { thread_.store(&this_thread, std::memory_order_relaxed); }
  void Clear() { thread_.store(nullptr, std::memory_order_relaxed); }
  bool IsThisThread() const {
    return thread_.load(std::memory_order_relaxed) == &this_thread;
  }

 private:
  std::atomic<const char*> thread_ = nullptr;
};
#endif
}  // namespace mutex_internal

// Thread-safe.
class ABSL_LOCKABLE Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() {
    mu_.lock();
    holder_.Set();
  }
  void Unlock() ABSL_UNLOCK_FUNCTION() {
    holder_.Clear();
    mu_.unlock();
  }
  bool TryLock() ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) {
    if (!mu_.try_lock()) return false;
    holder_.Set();
    return true;
  }
  // Checks in debug builds that the calling thread holds the mutex, and tells
  // the thread-safety analysis.
  void AssertHeld() const ABSL_ASSERT_EXCLUSIVE_LOCK() { MMU_DCHECK(IsHeld()); }
  // Whether the calling thread holds the mutex. For debug checks: always true
  // with NDEBUG.
  bool IsHeld() const { return holder_.IsThisThread(); }

 private:
  friend class CondVar;
  std::mutex mu_;
  [[no_unique_address]] mutex_internal::Holder holder_;
};

// Holds a Mutex for a scope.
class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex& mu) ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) : mu_(mu) {
    mu_.Lock();
  }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mu_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mu_;
};

// Thread-safe.
class CondVar {
 public:
  // Spurious wake-ups happen: wait in a loop over the condition.
  void Wait(Mutex& mu) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    std::unique_lock<std::mutex> lock(mu.mu_, std::adopt_lock);
    cv_.wait(lock);
    mu.holder_.Set();  // other threads have held it meanwhile
    lock.release();
  }
  // Returns false if `timeout` passed first.
  template <typename Duration>
  bool WaitFor(Mutex& mu, Duration timeout) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    std::unique_lock<std::mutex> lock(mu.mu_, std::adopt_lock);
    const bool notified =
        cv_.wait_for(lock, timeout) == std::cv_status::no_timeout;
    mu.holder_.Set();
    lock.release();
    return notified;
  }
  void NotifyAll() { cv_.notify_all(); }
  void NotifyOne() { cv_.notify_one(); }

 private:
  std::condition_variable cv_;
};

}  // namespace mmu

#endif  // MMU_CORE_BASE_MUTEX_H_
