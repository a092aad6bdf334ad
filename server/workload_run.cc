#include "server/workload_run.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/workload.h"

namespace mmud {

absl::Status WorkloadRun::Start(mmu::WorkloadOptions options) {
  const absl::Status status = vm_.StartWorkload(std::move(options));
  if (!status.ok()) Finish(mmu::WorkloadProgress());
  return status;
}

void WorkloadRun::RunToEnd() {
  while (!vm_.WaitWorkload(absl::Seconds(1))) {
  }
  Finish(Read());
}

void WorkloadRun::StopNow(Stop why) {
  {
    absl::MutexLock lock(&mu_);
    if (finished_) return;
    if (stop_ == Stop::kNot) stop_ = why;
  }
  vm_.StopWorkload();
}

bool WorkloadRun::WaitFinished(absl::Duration timeout) const {
  absl::MutexLock lock(&mu_);
  return mu_.AwaitWithTimeout(absl::Condition(&finished_), timeout);
}

bool WorkloadRun::finished() const {
  absl::MutexLock lock(&mu_);
  return finished_;
}

WorkloadRun::Stop WorkloadRun::stop_reason() const {
  absl::MutexLock lock(&mu_);
  return stop_;
}

mmu::WorkloadProgress WorkloadRun::Progress() const {
  {
    absl::MutexLock lock(&mu_);
    if (finished_) return final_;
  }
  return Read();
}

mmu::WorkloadProgress WorkloadRun::Read() const {
  absl::StatusOr<mmu::WorkloadProgress> progress = vm_.Workload();
  return progress.ok() ? *std::move(progress) : mmu::WorkloadProgress();
}

void WorkloadRun::Finish(mmu::WorkloadProgress progress) {
  absl::MutexLock lock(&mu_);
  final_ = std::move(progress);
  finished_ = true;
}

}  // namespace mmud
