// Ends pauses of vCPUs at their time.

#ifndef SERVER_CONTROL_PAUSE_KEEPER_H_
#define SERVER_CONTROL_PAUSE_KEEPER_H_

#include <thread>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "server/control/vm_registry.h"
#include "server/log/limited_log.h"

namespace mmud {

// Has a thread of its own, which says in the log what it ends. Thread-safe.
class PauseKeeper {
 public:
  // Both outlive this.
  PauseKeeper(VmRegistry& vms, LimitedLog& log);
  ~PauseKeeper();
  PauseKeeper(const PauseKeeper&) = delete;
  PauseKeeper& operator=(const PauseKeeper&) = delete;

  // There is a pause that ends at `expires`, unless it is extended.
  void Watch(mmu::MonotonicTime expires);

 private:
  void Run();

  VmRegistry& vms_;
  LimitedLog& log_;
  mmu::Mutex mu_;  // leaf
  mmu::CondVar changed_;
  // When to look at the pauses of all VMs. A pause is noted in its VM before
  // its time is here, and the thread resets this before it looks: so it sees
  // each pause, or finds its time here afterwards.
  mmu::MonotonicTime next_look_ ABSL_GUARDED_BY(mu_) =
      mmu::MonotonicTime::InfiniteFuture();
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace mmud

#endif  // SERVER_CONTROL_PAUSE_KEEPER_H_
