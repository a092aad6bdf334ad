// Ends pauses of vCPUs when their time is over.

#ifndef SERVER_CONTROL_PAUSE_KEEPER_H_
#define SERVER_CONTROL_PAUSE_KEEPER_H_

#include <thread>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "server/control/vm_registry.h"
#include "server/log/limited_log.h"

namespace mmud {

// Has a thread of its own, which logs the pauses that it ends. Thread-safe.
class PauseKeeper {
 public:
  // `vms` and `log` must outlive this object.
  PauseKeeper(VmRegistry& vms, LimitedLog& log);
  ~PauseKeeper();
  PauseKeeper(const PauseKeeper&) = delete;
  PauseKeeper& operator=(const PauseKeeper&) = delete;

  // Announces a pause that ends at `expires`, unless it is extended.
  void Watch(mmu::MonotonicTime expires);

 private:
  void Run();

  VmRegistry& vms_;
  LimitedLog& log_;
  mmu::Mutex mu_;  // leaf
  mmu::CondVar changed_;
  // The time at which to check the pauses of all VMs. A pause is set in its VM
  // before its end is entered here, and the thread resets this time before it
  // checks. So the thread either sees the pause or finds its end here
  // afterwards.
  mmu::MonotonicTime next_look_ ABSL_GUARDED_BY(mu_) =
      mmu::MonotonicTime::InfiniteFuture();
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: it uses the other members
};

}  // namespace mmud

#endif  // SERVER_CONTROL_PAUSE_KEEPER_H_
