// The creation of one generation as an operation that can be watched and
// cancelled.

#ifndef SERVER_CONTROL_GENERATION_JOB_H_
#define SERVER_CONTROL_GENERATION_JOB_H_

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/jobs/generation_scan.h"
#include "server/base/event.h"
#include "server/control/managed_vm.h"

namespace mmud {

// A value.
struct GenerationProgress {
  uint64_t sequence = 0;
  uint64_t total_pages = 0;
  uint64_t done_pages = 0;
  absl::Duration cpu_time;
  mmu::MmuCost cost;
};

// Thread-safe. Must not outlive its VM.
class GenerationJob {
 public:
  // Begins the generation; errors as mmu::GenerationScan::Begin. The job may
  // use `cpu_percent` percent of a processor, 1 to 100.
  static absl::StatusOr<std::shared_ptr<GenerationJob>> Begin(
      ManagedVm& vm, const mmu::GenerationOptions& options, int cpu_percent);

  // Scans to the end on the calling thread. False if it was cancelled, or the
  // VM's working set was forgotten; errors as mmu::GenerationScan::Next. After
  // each of them the generation is incomplete. Call once.
  absl::StatusOr<bool> Run();
  void Cancel() { cancelled_.Set(); }

  GenerationProgress progress() const;

 private:
  GenerationJob(ManagedVm& vm, std::unique_ptr<mmu::GenerationScan> scan,
                int cpu_percent);
  void Note(absl::Duration cpu_time);

  ManagedVm& vm_;
  const int cpu_percent_;
  Event cancelled_;
  std::unique_ptr<mmu::GenerationScan> scan_;  // of the thread of Run

  mutable absl::Mutex mu_;
  GenerationProgress progress_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_CONTROL_GENERATION_JOB_H_
