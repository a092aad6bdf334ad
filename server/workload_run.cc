#include "server/workload_run.h"

#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/sync/mutex.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/workload.h"
#include "server/base/wall_time.h"

namespace mmud {

absl::Status WorkloadRun::Start(mmu::WorkloadOptions options,
                                absl::FunctionRef<absl::Status()> confirm) {
  mmu::MutexLock control(control_mu_);
  const absl::Status status = vm_.StartWorkload(std::move(options), confirm);
  if (!status.ok()) {
    Finish(mmu::WorkloadProgress());
  } else if (stop_reason() != Stop::kNot) {
    vm_.StopWorkload();
  }
  return status;
}

void WorkloadRun::RunToEnd() {
  while (!vm_.WaitWorkload(absl::Seconds(1))) {
  }
  mmu::MutexLock control(control_mu_);
  Finish(Read());
}

void WorkloadRun::StopNow(Stop why) {
  mmu::MutexLock control(control_mu_);
  {
    mmu::MutexLock lock(mu_);
    if (finished_) return;
    if (stop_ == Stop::kNot) stop_ = why;
  }
  vm_.StopWorkload();
}

void WorkloadRun::AwaitFinished() const {
  mmu::MutexLock lock(mu_);
  while (!finished_) ended_.Wait(mu_);
}

bool WorkloadRun::finished() const {
  mmu::MutexLock lock(mu_);
  return finished_;
}

absl::optional<WallTime> WorkloadRun::end_time() const {
  mmu::MutexLock lock(mu_);
  return end_time_;
}

WorkloadRun::Stop WorkloadRun::stop_reason() const {
  mmu::MutexLock lock(mu_);
  return stop_;
}

mmu::WorkloadProgress WorkloadRun::Progress() const {
  {
    mmu::MutexLock lock(mu_);
    if (finished_) return final_;
  }
  return Read();
}

mmu::WorkloadProgress WorkloadRun::Read() const {
  absl::StatusOr<mmu::WorkloadProgress> progress = vm_.Workload();
  return progress.ok() ? *std::move(progress) : mmu::WorkloadProgress();
}

void WorkloadRun::Finish(mmu::WorkloadProgress progress) {
  mmu::MutexLock lock(mu_);
  final_ = std::move(progress);
  end_time_ = WallTime::Now();
  finished_ = true;
  ended_.NotifyAll();
}

}  // namespace mmud
