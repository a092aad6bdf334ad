#include "server/control/pause_keeper.h"

#include <algorithm>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/sync/timed_wait.h"
#include "server/control/vcpu_pause.h"
#include "server/control/vm_registry.h"
#include "server/log/limited_log.h"
#include "server/log/logging.h"

namespace mmud {
namespace {

// Ends the pauses that are over. Returns the end of the next pause.
mmu::MonotonicTime EndExpired(VmRegistry& vms, LimitedLog& log) {
  mmu::MonotonicTime next = mmu::MonotonicTime::InfiniteFuture();
  for (const VmUse& vm : vms.All()) {
    const mmu::MonotonicTime now = mmu::MonotonicTime::Now();
    const absl::optional<VcpuPause::State> ended =
        vm->pause().EndIfExpired(now);
    if (ended.has_value()) {
      log.SayDropped();
      log.Write(absl::StrCat("pause ", vm->name()), LogLevel::kWarning,
                "pause of the vCPUs ended: its time passed without ResumeVcpus",
                {{"vm", vm->name()},
                 {"duration", absl::FormatDuration(now - ended->since)}});
    }
    // A pause that is over but was not ended is being extended: the extending
    // thread calls Watch again.
    const absl::optional<VcpuPause::State> state = vm->pause().Get();
    if (state.has_value() && state->expires > now) {
      next = std::min(next, state->expires);
    }
  }
  return next;
}

}  // namespace

PauseKeeper::PauseKeeper(VmRegistry& vms, LimitedLog& log)
    : vms_(vms),
      log_(log),
      thread_(mmu::MakeThreadOrExit("pause keeper", [this] { Run(); })) {}

PauseKeeper::~PauseKeeper() {
  {
    mmu::MutexLock lock(mu_);
    stop_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void PauseKeeper::Watch(mmu::MonotonicTime expires) {
  mmu::MutexLock lock(mu_);
  next_look_ = std::min(next_look_, expires);
  changed_.NotifyAll();
}

void PauseKeeper::Run() {
  for (;;) {
    {
      mmu::MutexLock lock(mu_);
      while (!stop_ && mmu::WaitUntil(changed_, mu_, next_look_)) {
      }
      if (stop_) return;
      next_look_ = mmu::MonotonicTime::InfiniteFuture();
    }
    Watch(EndExpired(vms_, log_));
  }
}

}  // namespace mmud
