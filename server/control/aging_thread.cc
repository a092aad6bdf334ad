#include "server/control/aging_thread.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/sync/timed_wait.h"
#include "server/control/ager.h"
#include "server/control/vm_registry.h"

namespace mmud {

namespace {

// After which work that found no memory is tried again.
constexpr absl::Duration kRetry = absl::Seconds(1);

}  // namespace

AgerTotals& AgerTotals::operator+=(const AgerTotals& other) {
  generations += other.generations;
  failures += other.failures;
  cpu_time += other.cpu_time;
  return *this;
}

mmu::MonotonicTime StepAgers(VmRegistry& vms, mmu::MonotonicTime now,
                             AgerTotals& totals) {
  mmu::MonotonicTime next = mmu::MonotonicTime::InfiniteFuture();
  // No VM is kept from its deletion for longer than its own step lasts.
  std::string last;
  for (;;) {
    std::vector<VmRegistry::Sight> found = vms.List(last, /*limit=*/1);
    if (found.empty()) return next;
    VmRegistry::Sight& vm = found.front();
    last = std::move(vm.name);
    if (!vm.use || vm.use->deleting()) continue;
    Ager::Outcome step = {.due = now + kRetry, .failed = true};
    static_cast<void>(mmu::TryWithMemory([&] {
      step = vm.use->ager().Step(now);
      return true;
    }));
    next = std::min(next, step.due);
    totals += {.generations = step.ended_generation ? uint64_t{1} : 0,
               .failures = step.failed ? uint64_t{1} : 0,
               .cpu_time = step.cpu_time};
  }
}

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
  for (;;) {
    AgerTotals done;
    mmu::MonotonicTime due = mmu::MonotonicTime::Now() + kRetry;
    // There may be no memory to look for the VMs.
    static_cast<void>(mmu::TryWithMemory([&] {
      due = StepAgers(vms_, mmu::MonotonicTime::Now(), done);
      return true;
    }));
    mmu::MutexLock lock(mu_);
    totals_ += done;
    while (!stopping_ && !woken_) {
      if (!mmu::WaitUntil(changed_, mu_, due)) break;
    }
    if (stopping_) return;
    woken_ = false;
  }
}

}  // namespace mmud
