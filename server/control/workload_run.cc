#include "server/control/workload_run.h"

#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/vm/vm.h"
#include "server/base/errors.h"

namespace mmud {
namespace {

WorkloadRun::State ToState(mmu::WorkloadProgress::State state) {
  switch (state) {
    case mmu::WorkloadProgress::State::kRunning:
      return WorkloadRun::State::kRunning;
    case mmu::WorkloadProgress::State::kDone:
      return WorkloadRun::State::kCompleted;
    case mmu::WorkloadProgress::State::kStopped:
      return WorkloadRun::State::kStopped;
    case mmu::WorkloadProgress::State::kFailed:
      break;
  }
  return WorkloadRun::State::kFailed;
}

// The error that ended a workload early. An error without a reason comes from
// its program.
absl::Status WithReason(const absl::Status& error) {
  if (mmu::DetailOf(error).reason != mmu::Reason::kNone) return error;
  switch (error.code()) {
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kFailedPrecondition:
      return ApiError(error.code(), mmu::Reason::kTraceTooLarge,
                      error.message());
    case absl::StatusCode::kDataLoss:
      return ApiError(error.code(), mmu::Reason::kTraceCorrupt,
                      error.message());
    default:
      return error;
  }
}

}  // namespace

absl::Status WorkloadRun::Start(mmu::WorkloadOptions options,
                                absl::FunctionRef<absl::Status()> confirm) {
  mmu::MutexLock control(control_mu_);
  const absl::Status status = vm_.StartWorkload(std::move(options), confirm);
  if (!status.ok()) {
    Progress none;
    none.state = State::kFailed;
    none.error = status;
    Finish(std::move(none));
  } else if (stop_requested()) {
    vm_.StopWorkload();
  }
  return status;
}

void WorkloadRun::RunToEnd(
    absl::FunctionRef<void(const Progress& end)> let_go) {
  while (!vm_.WaitWorkload(absl::Seconds(1))) {
  }
  mmu::MutexLock control(control_mu_);
  Progress end = Read();
  end.end_time = start_time_.Later(end.running_time);
  let_go(end);
  Finish(std::move(end));
}

void WorkloadRun::StopNow() {
  mmu::MutexLock control(control_mu_);
  {
    mmu::MutexLock lock(mu_);
    if (finished_) return;
    stop_requested_ = true;
  }
  vm_.StopWorkload();
}

bool WorkloadRun::stop_requested() const {
  mmu::MutexLock lock(mu_);
  return stop_requested_;
}

void WorkloadRun::AwaitFinished() const {
  mmu::MutexLock lock(mu_);
  while (!finished_) ended_.Wait(mu_);
}

bool WorkloadRun::finished() const {
  mmu::MutexLock lock(mu_);
  return finished_;
}

WorkloadRun::Progress WorkloadRun::progress() const {
  {
    mmu::MutexLock lock(mu_);
    if (finished_) return end_;
  }
  Progress progress = Read();
  // All its vCPUs may be idle by now, though the workload has not ended.
  progress.state = State::kRunning;
  progress.error = absl::OkStatus();
  mmu::MutexLock lock(mu_);
  // If the workload has finished since, the figures read may be those of the
  // next one.
  return finished_ ? end_ : progress;
}

WorkloadRun::Progress WorkloadRun::Read() const {
  Progress progress;
  const absl::StatusOr<mmu::WorkloadProgress> read = vm_.Workload();
  if (!read.ok()) return progress;  // not started yet
  progress.state = ToState(read->state);
  if (progress.state == State::kFailed) {
    progress.error = WithReason(read->error);
  }
  progress.stats = read->stats;
  progress.running_time = read->running;
  return progress;
}

void WorkloadRun::Finish(Progress end) {
  mmu::MutexLock lock(mu_);
  end_ = std::move(end);
  finished_ = true;
  ended_.NotifyAll();
}

const char* ToString(WorkloadRun::State state) {
  switch (state) {
    case WorkloadRun::State::kRunning:
      return "running";
    case WorkloadRun::State::kCompleted:
      return "completed";
    case WorkloadRun::State::kStopped:
      return "stopped";
    case WorkloadRun::State::kFailed:
      return "failed";
  }
  return "invalid";
}

}  // namespace mmud
