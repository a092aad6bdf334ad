// The thread on which the agers of all VMs work.

#ifndef SERVER_CONTROL_AGING_THREAD_H_
#define SERVER_CONTROL_AGING_THREAD_H_

#include <cstdint>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "server/control/vm_registry.h"

namespace mmud {

// What the agers of all VMs did, also of those that are gone. A value.
struct AgerTotals {
  uint64_t generations = 0;
  uint64_t failures = 0;
  absl::Duration cpu_time;

  AgerTotals& operator+=(const AgerTotals& other);
};

// One step of the ager of each VM, one VM after the other. Adds what they did
// to `totals`, and returns when the next step is due. Without memory for the
// step of a VM, that counts as failed and is due again after a while.
mmu::MonotonicTime StepAgers(VmRegistry& vms, mmu::MonotonicTime now,
                             AgerTotals& totals);

// Works from construction to destruction. All agers together use one processor
// at most. Thread-safe.
class AgingThread {
 public:
  // `vms` must outlive this object.
  explicit AgingThread(VmRegistry& vms);
  ~AgingThread();
  AgingThread(const AgingThread&) = delete;
  AgingThread& operator=(const AgingThread&) = delete;

  // The settings of an ager have changed.
  void Wake();

  AgerTotals totals() const;

 private:
  void Run();

  VmRegistry& vms_;
  mutable mmu::Mutex mu_;
  mmu::CondVar changed_;
  bool woken_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  AgerTotals totals_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace mmud

#endif  // SERVER_CONTROL_AGING_THREAD_H_
