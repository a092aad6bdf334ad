#include "server/rpc/worker_pool.h"

#include <cstdint>
#include <functional>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/thread.h"
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

absl::Status WorkerPool::Post(std::function<void()> work) {
  Threads ended;
  absl::Status status;
  std::function<void()> refused;  // its captures are destroyed without the lock
  {
    mmu::MutexLock lock(mu_);
    queue_.push_back(std::move(work));
    if (idle_ < static_cast<int64_t>(queue_.size()) &&
        static_cast<int64_t>(threads_.size()) < max_threads_) {
      status = StartThread();
      if (!status.ok() && !threads_.empty() &&
          without_ == WithoutThread::kWait) {
        status = absl::OkStatus();
      }
      if (!status.ok()) {
        // Still in the queue: the lock was held, so no thread took it.
        refused = std::move(queue_.back());
        queue_.pop_back();
      }
    }
    changed_.NotifyOne();
    ended.swap(ended_);
  }
  for (std::thread& thread : ended) thread.join();
  return status;
}

absl::Status WorkerPool::StartThread() {
  const auto self = threads_.emplace(threads_.end());
  absl::StatusOr<std::thread> thread =
      mmu::MakeThread([this, self] { Run(self); });
  if (thread.ok()) {
    *self = *std::move(thread);
  } else {
    threads_.erase(self);
  }
  return thread.status();
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
    // Its captures are destroyed before the lock is taken.
    work = nullptr;
    mu_.Lock();
  }
  ended_.splice(ended_.end(), threads_, self);
  if (stopping_) changed_.NotifyAll();
  mu_.Unlock();
}

}  // namespace mmud
