#include "server/control/aging_thread.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

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
  // Without memory to look for the VMs, try again after a while. A step that
  // finds none ends with an error and counts as failed.
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
  // One VM after the other, so that none is kept from its deletion for longer
  // than its own step lasts.
  std::string last;
  for (;;) {
    std::vector<VmRegistry::Sight> vms = vms_.List(last, /*limit=*/1);
    if (vms.empty()) return next;
    VmRegistry::Sight& vm = vms.front();
    last = std::move(vm.name);
    if (!vm.use || vm.use->deleting()) continue;
    const Ager::Outcome step = vm.use->ager().Step(mmu::MonotonicTime::Now());
    next = std::min(next, step.due);
    mmu::MutexLock lock(mu_);
    totals_.generations += step.ended_generation ? 1 : 0;
    totals_.failures += step.failed ? 1 : 0;
    totals_.cpu_time += step.cpu_time;
  }
}

}  // namespace mmud
