#include "server/control/aging_thread.h"

#include <algorithm>

#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/sync/timed_wait.h"
#include "server/control/ager.h"
#include "server/control/vm_registry.h"

namespace mmud {

AgingThread::AgingThread(VmRegistry& vms)
    : vms_(vms), thread_(mmu::MakeThreadOrExit("aging", [this] { Run(); })) {}

AgingThread::~AgingThread() {
  {
    mmu::MutexLock lock(mu_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void AgingThread::Wake() {
  mmu::MutexLock lock(mu_);
  woken_ = true;
  changed_.NotifyAll();
}

AgerTotals AgingThread::totals() const {
  mmu::MutexLock lock(mu_);
  return totals_;
}

void AgingThread::Run() {
  // Work that finds no memory is tried again after a while.
  constexpr absl::Duration kRetry = absl::Seconds(1);
  for (;;) {
    mmu::MonotonicTime due = mmu::MonotonicTime::Now() + kRetry;
    static_cast<void>(mmu::TryWithMemory([&] {
      due = StepAll();
      return true;
    }));
    mmu::MutexLock lock(mu_);
    while (!stopping_ && !woken_) {
      if (!mmu::WaitUntil(changed_, mu_, due)) break;
    }
    if (stopping_) return;
    woken_ = false;
  }
}

mmu::MonotonicTime AgingThread::StepAll() {
  mmu::MonotonicTime next = mmu::MonotonicTime::InfiniteFuture();
  for (const VmUse& vm : vms_.All()) {
    if (vm->deleting()) continue;
    const Ager::Outcome step = vm->ager().Step(mmu::MonotonicTime::Now());
    next = std::min(next, step.due);
    mmu::MutexLock lock(mu_);
    totals_.generations += step.ended_generation ? 1 : 0;
    totals_.failures += step.failed ? 1 : 0;
    totals_.cpu_time += step.cpu_time;
  }
  return next;
}

}  // namespace mmud
