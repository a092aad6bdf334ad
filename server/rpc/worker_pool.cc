#include "server/rpc/worker_pool.h"

#include <cstdint>
#include <functional>
#include <thread>
#include <utility>

#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/sync/mutex.h"
#include "mmu_core/sync/timed_wait.h"

namespace mmud {
namespace {

constexpr absl::Duration kIdleTime = absl::Seconds(10);

}  // namespace

WorkerPool::~WorkerPool() {
  Threads threads;
  {
    mmu::MutexLock lock(mu_);
    stopping_ = true;
    changed_.NotifyAll();
    while (!threads_.empty()) changed_.Wait(mu_);
    threads.swap(ended_);
  }
  for (std::thread& thread : threads) thread.join();
}

void WorkerPool::Post(std::function<void()> work) {
  Threads ended;
  {
    mmu::MutexLock lock(mu_);
    queue_.push_back(std::move(work));
    if (idle_ < static_cast<int64_t>(queue_.size()) &&
        static_cast<int64_t>(threads_.size()) < max_threads_) {
      const auto self = threads_.emplace(threads_.end());
      *self = std::thread([this, self] { Run(self); });
    } else {
      changed_.NotifyOne();
    }
    ended.swap(ended_);
  }
  for (std::thread& thread : ended) thread.join();
}

int64_t WorkerPool::threads() const {
  mmu::MutexLock lock(mu_);
  return static_cast<int64_t>(threads_.size());
}

void WorkerPool::Run(Threads::iterator self) {
  mu_.Lock();
  for (;;) {
    if (queue_.empty()) {
      if (stopping_) break;
      const mmu::MonotonicTime until = mmu::MonotonicTime::Now() + kIdleTime;
      ++idle_;
      bool in_time = true;
      while (queue_.empty() && !stopping_ && in_time) {
        in_time = mmu::WaitUntil(changed_, mu_, until);
      }
      --idle_;
      if (!in_time && queue_.empty()) break;
      continue;
    }
    std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    mu_.Unlock();
    work();
    // What it holds goes before the lock is taken.
    work = nullptr;
    mu_.Lock();
  }
  ended_.splice(ended_.end(), threads_, self);
  if (stopping_) changed_.NotifyAll();
  mu_.Unlock();
}

}  // namespace mmud
