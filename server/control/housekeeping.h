// Periodic work of the daemon: samples dirty counters for GetDirtyRate and
// stops dirty logs whose owners make no call.

#ifndef SERVER_CONTROL_HOUSEKEEPING_H_
#define SERVER_CONTROL_HOUSEKEEPING_H_

#include <thread>

#include "mmu_core/base/clock.h"
#include "server/base/event.h"
#include "server/control/abandoned_logs.h"
#include "server/control/vm_registry.h"

namespace mmud {

// Works on a thread of its own from construction to destruction.
class Housekeeping {
 public:
  // `vms` and `abandoned` must outlive this object.
  Housekeeping(VmRegistry& vms, AbandonedLogs& abandoned);
  ~Housekeeping();
  Housekeeping(const Housekeeping&) = delete;
  Housekeeping& operator=(const Housekeeping&) = delete;

 private:
  void Run();

  VmRegistry& vms_;
  AbandonedLogs& abandoned_;
  Event stop_;
  std::thread thread_;
};

// Runs one round at time `now`. It only reads counters, unless a log has
// expired.
void HousekeepOnce(VmRegistry& vms, AbandonedLogs& abandoned,
                   mmu::MonotonicTime now);

}  // namespace mmud

#endif  // SERVER_CONTROL_HOUSEKEEPING_H_
