// Giving huge pages another try that were split because the guest executed from
// them: a worker per VM, which zaps the tables that stand there longest
// (SPTE-53). A page that is executed again is split again.

#ifndef MMU_CORE_VM_JOBS_NX_RECOVERY_H_
#define MMU_CORE_VM_JOBS_NX_RECOVERY_H_

#include <cstdint>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/vm/core/nx_parameters.h"

namespace mmu {

struct VmCore;

// One run: of each MMU one in `ratio` of the tables listed now, rounded up,
// oldest first; tables of slots that log are only taken off the list. Returns
// how many were zapped. Takes mmu_lock, for the TDP MMU in read mode, then for
// the shadow MMU in write mode; yields.
uint64_t RecoverNxHugePages(VmCore& vm, uint32_t ratio);

// A VM's side of the parameters: follows their changes and runs the worker.
// Thread-safe. No thread exists before the mitigation was on once.
class NxRecovery {
 public:
  // `vm` is complete and outlives this.
  NxRecovery(VmCore& vm, NxParameters& parameters);
  // Whether the worker exists if one is needed: otherwise why it could not be
  // made (base/thread.h). What was split then stays so until the parameters
  // change, when it is tried again.
  absl::Status status() const;
  // Ends the worker.
  ~NxRecovery();
  NxRecovery(const NxRecovery&) = delete;
  NxRecovery& operator=(const NxRecovery&) = delete;

 private:
  void SetMitigated(bool on);
  // Under the lock of parameters_.
  void EnsureWorker();
  void Wake();
  void Work();

  VmCore& vm_;
  NxParameters& parameters_;
  NxParameters::Listener listener_;
  std::thread worker_;  // started under the lock of parameters_
  mutable Mutex mu_;
  CondVar woken_;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t wakes_ ABSL_GUARDED_BY(mu_) = 0;  // parameters changed so often
};

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_NX_RECOVERY_H_
