// What the daemon does by itself: samples dirty counters for GetDirtyRate and
// stops dirty logs that nobody harvests.

#ifndef SERVER_HOUSEKEEPING_H_
#define SERVER_HOUSEKEEPING_H_

#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "server/vm_registry.h"

namespace mmud {

// Works on a thread of its own from construction to destruction.
class Housekeeping {
 public:
  // `vms` outlives this.
  explicit Housekeeping(VmRegistry& vms);
  ~Housekeeping();
  Housekeeping(const Housekeeping&) = delete;
  Housekeeping& operator=(const Housekeeping&) = delete;

 private:
  void Run();

  VmRegistry& vms_;
  absl::Notification stop_;
  std::thread thread_;
};

// One round at time `now`; reads counters only, unless a log has expired.
void HousekeepOnce(VmRegistry& vms, absl::Time now);

}  // namespace mmud

#endif  // SERVER_HOUSEKEEPING_H_
