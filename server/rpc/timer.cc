#include "server/rpc/timer.h"

#include <functional>
#include <thread>
#include <utility>

#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/sync/timed_wait.h"

namespace mmud {

Timer::Timer() : thread_(mmu::MakeThreadOrExit("timers", [this] { Run(); })) {}

Timer::~Timer() {
  {
    mmu::MutexLock lock(mu_);
    stop_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

Timer::Ticket Timer::At(mmu::MonotonicTime when,
                        std::function<void()> function) {
  mmu::MutexLock lock(mu_);
  const Ticket ticket(when, ++count_);
  functions_.emplace(ticket, std::move(function));
  if (functions_.begin()->first == ticket) changed_.NotifyAll();
  return ticket;
}

void Timer::Cancel(const Ticket& ticket) {
  mmu::MutexLock lock(mu_);
  functions_.erase(ticket);
}

void Timer::Run() {
  for (;;) {
    std::function<void()> function;
    {
      mmu::MutexLock lock(mu_);
      while (!stop_ &&
             (functions_.empty() ||
              mmu::MonotonicTime::Now() < functions_.begin()->first.first)) {
        if (functions_.empty()) {
          changed_.Wait(mu_);
        } else {
          mmu::WaitUntil(changed_, mu_, functions_.begin()->first.first);
        }
      }
      if (stop_) return;
      const auto next = functions_.begin();
      function = std::move(next->second);
      functions_.erase(next);
    }
    function();
  }
}

}  // namespace mmud
