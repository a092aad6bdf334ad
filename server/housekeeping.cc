#include "server/housekeeping.h"

#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/thread.h"
#include "server/logging.h"
#include "server/services/dirty_log_control.h"
#include "server/vm_registry.h"

namespace mmud {

Housekeeping::Housekeeping(VmRegistry& vms)
    : vms_(vms),
      thread_(mmu::MakeThreadOrExit("housekeeping", [this] { Run(); })) {}

Housekeeping::~Housekeeping() {
  stop_.Set();
  thread_.join();
}

void Housekeeping::Run() {
  while (!stop_.WaitFor(absl::Seconds(1))) {
    HousekeepOnce(vms_, mmu::MonotonicTime::Now());
  }
}

void HousekeepOnce(VmRegistry& vms, mmu::MonotonicTime now) {
  for (const VmUse& vm : vms.All()) {
    if (!vm->dirty_log_settings().has_value()) continue;
    vm->dirty_rate().Add(vm->SampleDirty(now));
    const auto discarded = StopIfExpired(*vm, now);
    if (!discarded.has_value()) continue;
    if (!discarded->ok()) {
      Log(LogLevel::kWarning,
          "dirty log not stopped though its ttl is over; tried again",
          {{"vm", vm->name()},
           {"error", std::string(discarded->status().message())}});
      continue;
    }
    Log(LogLevel::kWarning,
        "dirty log stopped: nobody harvested it within its ttl",
        {{"vm", vm->name()}, {"discarded_pages", absl::StrCat(**discarded)}});
  }
}

}  // namespace mmud
