// The workloads that run.

#ifndef SERVER_CONTROL_WORKLOAD_STORE_H_
#define SERVER_CONTROL_WORKLOAD_STORE_H_

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/vm/run/workload.h"
#include "server/control/drain_state.h"
#include "server/control/vm_registry.h"
#include "server/control/workload_run.h"
#include "server/log/limited_log.h"

namespace mmud {

// What the exporter tells about workloads. A value.
struct WorkloadMetrics {
  int64_t running = 0;
  uint64_t completed = 0;
  uint64_t stopped = 0;
  uint64_t failed = 0;
};

// A workload is a guest that runs, not work of the daemon's: as many run as
// there are VMs. Each has a thread that waits for its end, and is otherwise its
// VM's (ManagedVm::workload). Thread-safe.
class WorkloadStore {
 public:
  // All outlive this.
  WorkloadStore(VmRegistry& vms, const DrainState& drain, LimitedLog& log)
      : vms_(vms), drain_(drain), log_(log) {}
  // Ends what runs.
  ~WorkloadStore();
  WorkloadStore(const WorkloadStore&) = delete;
  WorkloadStore& operator=(const WorkloadStore&) = delete;

  // Starts a workload on the first vCPUs of `vm`, of which it is the workload
  // from before they run. FAILED_PRECONDITION
  // WORKLOAD_RUNNING or VM_DELETED, UNAVAILABLE DRAINING or THREADS_EXHAUSTED,
  // and the errors of mmu::Vm::StartWorkload; then nothing has happened to the
  // guest, and the VM's last workload is what it was.
  absl::StatusOr<std::shared_ptr<WorkloadRun>> Start(
      const VmUse& vm, WorkloadDescription description,
      mmu::WorkloadOptions options);

  // Ends all that run and waits until they have. REQUIRES: none begins, since
  // the drain has begun or nobody calls Start any more.
  void StopAll();

  WorkloadMetrics Metrics() const;

 private:
  struct Entry {
    std::shared_ptr<WorkloadRun> run;
    VmUse use;           // its thread's, until the run ends
    std::thread thread;  // guarded by mu_
  };
  using EntryPtr = std::shared_ptr<Entry>;

  // What the thread of an entry does.
  void Run(const EntryPtr& entry);
  void JoinFinished();

  VmRegistry& vms_;
  const DrainState& drain_;
  LimitedLog& log_;
  mutable mmu::Mutex mu_;
  absl::flat_hash_set<EntryPtr> running_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> finished_ ABSL_GUARDED_BY(mu_);
  WorkloadMetrics metrics_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_CONTROL_WORKLOAD_STORE_H_
