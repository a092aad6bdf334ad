#include "server/control/generation_job.h"

#include <memory>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "mmu_core/vm/jobs/generation_scan.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/working_set/working_set.h"
#include "server/base/thread_cpu_time.h"
#include "server/control/managed_vm.h"
#include "server/control/working_set_sizes.h"

namespace mmud {

absl::StatusOr<std::shared_ptr<GenerationJob>> GenerationJob::Begin(
    ManagedVm& vm, const mmu::GenerationOptions& options, int cpu_percent) {
  absl::StatusOr<std::unique_ptr<mmu::GenerationScan>> scan =
      vm.vm().BeginGeneration(options);
  if (!scan.ok()) return scan.status();
  return absl::WrapUnique(new GenerationJob(vm, *std::move(scan), cpu_percent));
}

GenerationJob::GenerationJob(ManagedVm& vm,
                             std::unique_ptr<mmu::GenerationScan> scan,
                             int cpu_percent)
    : vm_(vm), cpu_percent_(cpu_percent), scan_(std::move(scan)) {
  Note(absl::ZeroDuration());
}

absl::StatusOr<bool> GenerationJob::Run() {
  bool cancelled = false;
  while (!scan_->done() && !cancelled) {
    const absl::Duration begin = ThreadCpuTime();
    if (absl::Status status = scan_->Next(); !status.ok()) return status;
    const absl::Duration cpu_time = ThreadCpuTime() - begin;
    Note(cpu_time);
    const absl::Duration pause = scan_->done()
                                     ? absl::ZeroDuration()
                                     : PauseForBudget(cpu_time, cpu_percent_);
    cancelled = cancelled_.WaitFor(pause);
  }
  // Until the scan ends, nobody tracks another working set.
  const std::shared_ptr<const mmu::WorkingSet> working_set =
      scan_->forgotten() ? nullptr : vm_.vm().FindWorkingSet();
  const bool whole = scan_->done() && working_set != nullptr;
  scan_.reset();
  // Without memory for it the sizes are the former.
  if (working_set != nullptr) {
    static_cast<void>(vm_.working_set_sizes().Measure(working_set));
  }
  return whole;
}

GenerationProgress GenerationJob::progress() const {
  absl::MutexLock lock(&mu_);
  return progress_;
}

void GenerationJob::Note(absl::Duration cpu_time) {
  absl::MutexLock lock(&mu_);
  progress_ = {.sequence = scan_->sequence(),
               .total_pages = scan_->total_pages(),
               .done_pages = scan_->done_pages(),
               .cpu_time = progress_.cpu_time + cpu_time,
               .cost = scan_->cost()};
}

}  // namespace mmud
