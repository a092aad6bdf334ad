// Recovery of huge pages that were split because the guest executed from them:
// a worker per VM zaps the oldest of the small pages' tables (SPTE-53). A page
// that is executed again is split again.

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

// One run: zaps, in each MMU, one in `ratio` of the tables listed now, rounded
// up, oldest first; tables of slots that log are only taken off the list.
// Returns the number of zapped tables. Takes mmu_lock, for the TDP MMU in read
// mode, then for the shadow MMU in write mode; yields.
uint64_t RecoverNxHugePages(VmCore& vm, uint32_t ratio);

// Applies the parameters to a VM: follows their changes and runs the worker.
// Thread-safe. No thread exists before the mitigation was first on.
class NxRecovery {
 public:
  // `vm` is complete and outlives this object.
  NxRecovery(VmCore& vm, NxParameters& parameters);
  // OK unless a needed worker could not be made; then the error
  // (base/thread.h). In that case split pages stay split until the parameters
  // change, when the worker is tried again.
  absl::Status status() const;
  // Ends the worker.
  ~NxRecovery();
  NxRecovery(const NxRecovery&) = delete;
  NxRecovery& operator=(const NxRecovery&) = delete;

 private:
  void SetMitigated(bool on);
  // Called under the lock of parameters_.
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
  uint64_t wakes_ ABSL_GUARDED_BY(mu_) = 0;  // number of parameter changes
};

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_NX_RECOVERY_H_
