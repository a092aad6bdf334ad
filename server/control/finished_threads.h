// Threads whose work has ended and that are still to be joined.

#ifndef SERVER_CONTROL_FINISHED_THREADS_H_
#define SERVER_CONTROL_FINISHED_THREADS_H_

#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/mutex.h"

namespace mmud {

// A thread cannot join itself: at its end it hands itself over here, and a
// later call on another thread joins it. Thread-safe.
class FinishedThreads {
 public:
  FinishedThreads() = default;
  ~FinishedThreads() { Join(); }
  FinishedThreads(const FinishedThreads&) = delete;
  FinishedThreads& operator=(const FinishedThreads&) = delete;

  // `thread` is the calling thread, or one that ends soon.
  void Add(std::thread thread) {
    mmu::MutexLock lock(mu_);
    threads_.push_back(std::move(thread));
  }

  // Waits for the ends of the threads added so far. Not called by one of them,
  // nor with a lock that they take.
  void Join() {
    std::vector<std::thread> threads;
    {
      mmu::MutexLock lock(mu_);
      threads.swap(threads_);
    }
    for (std::thread& thread : threads) thread.join();
  }

 private:
  mmu::Mutex mu_;  // leaf
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_CONTROL_FINISHED_THREADS_H_
