// The running workloads.

#ifndef SERVER_CONTROL_WORKLOAD_STORE_H_
#define SERVER_CONTROL_WORKLOAD_STORE_H_

#include <cstdint>
#include <memory>
#include <thread>
#include <unordered_set>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/vm/run/workload.h"
#include "server/control/drain_state.h"
#include "server/control/finished_threads.h"
#include "server/control/vm_registry.h"
#include "server/control/workload_run.h"
#include "server/log/limited_log.h"

namespace mmud {

// The metrics of workloads. A value.
struct WorkloadMetrics {
  int64_t running = 0;
  uint64_t completed = 0;
  uint64_t stopped = 0;
  uint64_t failed = 0;
};

// A workload is a running guest, not work of the daemon: there can be one for
// each VM. Each has a thread here that waits for its end; everything else
// belongs to its VM (ManagedVm::workload). Thread-safe.
class WorkloadStore {
 public:
  // All three outlive this.
  WorkloadStore(VmRegistry& vms, const DrainState& drain, LimitedLog& log)
      : vms_(vms), drain_(drain), log_(log) {}
  // Ends the running workloads.
  ~WorkloadStore();
  WorkloadStore(const WorkloadStore&) = delete;
  WorkloadStore& operator=(const WorkloadStore&) = delete;

  // Starts a workload on the first vCPUs of `vm`. It becomes the VM's workload
  // before the vCPUs run. FAILED_PRECONDITION WORKLOAD_RUNNING or VM_DELETED,
  // UNAVAILABLE DRAINING or THREADS_EXHAUSTED, and the errors of
  // mmu::Vm::StartWorkload; after an error the guest has not run, and the VM's
  // workload is the same as before.
  absl::StatusOr<std::shared_ptr<WorkloadRun>> Start(
      const VmUse& vm, WorkloadDescription description,
      mmu::WorkloadOptions options);

  // Ends all running workloads and waits until they have ended. REQUIRES: no
  // workload begins, since the drain has begun or Start is not called any more.
  void StopAll();

  WorkloadMetrics Metrics() const;

 private:
  struct Entry {
    std::shared_ptr<WorkloadRun> run;
    VmUse use;           // used by its thread, until the run ends
    std::thread thread;  // guarded by mu_
  };
  using EntryPtr = std::shared_ptr<Entry>;

  // The function of an entry's thread.
  void Run(const EntryPtr& entry);

  VmRegistry& vms_;
  const DrainState& drain_;
  LimitedLog& log_;
  mutable mmu::Mutex mu_;
  std::unordered_set<EntryPtr> running_ ABSL_GUARDED_BY(mu_);
  FinishedThreads finished_;
  WorkloadMetrics metrics_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_CONTROL_WORKLOAD_STORE_H_
