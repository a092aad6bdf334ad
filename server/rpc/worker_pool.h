// Threads that do the work of calls, because gRPC's own threads must never
// wait.

#ifndef SERVER_RPC_WORKER_POOL_H_
#define SERVER_RPC_WORKER_POOL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "mmu_core/base/mutex.h"

namespace mmud {

// Starts a thread when work comes and none is idle, up to a limit; further work
// waits its turn. A thread without work for a while ends. The budgets in
// call_runtime.h limit the amount of work, not this class. Thread-safe.
class WorkerPool {
 public:
  // Handling of work for which the host creates no thread, though the limit
  // allows one.
  enum class WithoutThread : uint8_t {
    kWait,    // waits its turn, if there is any thread: work is short
    kRefuse,  // refused: the other threads may be busy for minutes
  };

  explicit WorkerPool(int64_t max_threads,
                      WithoutThread without = WithoutThread::kWait)
      : max_threads_(max_threads), without_(without) {}
  // Does the queued work and waits for it.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Never waits. UNAVAILABLE THREADS_EXHAUSTED (mmu_core/base/thread.h): `work`
  // was not and will not be done.
  absl::Status Post(std::function<void()> work);

  int64_t threads() const;

 private:
  using Threads = std::list<std::thread>;

  absl::Status StartThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Run(Threads::iterator self);

  const int64_t max_threads_;
  const WithoutThread without_;
  mutable mmu::Mutex mu_;
  mmu::CondVar changed_;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mu_);
  Threads threads_ ABSL_GUARDED_BY(mu_);
  Threads ended_ ABSL_GUARDED_BY(mu_);  // to be joined
  // Threads that wait for work. A thread that was woken counts until it has the
  // lock again, so compare this with the length of the queue, never with 0.
  int64_t idle_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace mmud

#endif  // SERVER_RPC_WORKER_POOL_H_
