#include "server/control/housekeeping.h"

#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/vm/vm.h"
#include "server/control/abandoned_logs.h"
#include "server/control/vm_registry.h"
#include "server/log/logging.h"

namespace mmud {

Housekeeping::Housekeeping(VmRegistry& vms, AbandonedLogs& abandoned)
    : vms_(vms),
      abandoned_(abandoned),
      thread_(mmu::MakeThreadOrExit("housekeeping", [this] { Run(); })) {}

Housekeeping::~Housekeeping() {
  stop_.Set();
  thread_.join();
}

void Housekeeping::Run() {
  while (!stop_.WaitFor(absl::Seconds(1))) {
    // Work that finds no memory now is done in the next round.
    static_cast<void>(mmu::TryWithMemory([this] {
      HousekeepOnce(vms_, abandoned_, mmu::MonotonicTime::Now());
      return true;
    }));
  }
}

void HousekeepOnce(VmRegistry& vms, AbandonedLogs& abandoned,
                   mmu::MonotonicTime now) {
  for (const VmUse& vm : vms.All()) {
    if (!vm->vm().LogsDirtyPages()) continue;
    vm->dirty_rate().Add(vm->SampleDirty(now));
    const absl::optional<mmu::Vm::Abandoned> log =
        vm->vm().StopAbandonedDirtyLog(now, nullptr);
    if (!log.has_value()) {
      // If its ttl is over here all the same, there was no memory to stop it.
      const absl::optional<mmu::MonotonicTime> end = vm->vm().FindDirtyLogEnd();
      if (end.has_value() && *end <= now) {
        Log(LogLevel::kWarning,
            "dirty log not stopped: its owner made no call within its ttl, and "
            "there is no memory to stop it",
            {{"vm", vm->name()}});
      }
      continue;
    }
    const mmu::UndeliveredCounts& lost = log->stopped.discarded;
    abandoned.Count(lost.open + lost.sealed + lost.in_flight);
    Log(LogLevel::kWarning,
        "dirty log stopped: its owner made no call within its ttl",
        {{"vm", vm->name()},
         {"log_id", log->log.state.id.ToString()},
         {"owner", log->log.state.owner},
         {"discarded_open_pages", absl::StrCat(lost.open)},
         {"discarded_sealed_pages", absl::StrCat(lost.sealed)},
         {"discarded_in_flight_pages", absl::StrCat(lost.in_flight)}});
  }
}

}  // namespace mmud
