#include "server/control/workload_store.h"

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/vm/run/workload.h"
#include "server/base/errors.h"
#include "server/control/drain_state.h"
#include "server/control/managed_vm.h"
#include "server/control/vm_registry.h"
#include "server/control/workload_run.h"
#include "server/log/limited_log.h"
#include "server/log/logging.h"

namespace mmud {
namespace {

// Not the rule of mmu::Vm::StartWorkload, which has the same reason: there a
// workload runs while one of its vCPUs does. Here it runs from before that
// start until its end is recorded, and until then the figures of the VM are its
// own.
absl::Status WorkloadRunning(const std::string& vm) {
  return AboutVm(
      ApiError(absl::StatusCode::kFailedPrecondition,
               mmu::Reason::kWorkloadRunning,
               absl::StrCat(vm, " runs a workload already; stop it first")),
      vm);
}

uint64_t& CountOf(WorkloadMetrics& metrics, WorkloadRun::State end) {
  switch (end) {
    case WorkloadRun::State::kCompleted:
      return metrics.completed;
    case WorkloadRun::State::kStopped:
      return metrics.stopped;
    case WorkloadRun::State::kRunning:
    case WorkloadRun::State::kFailed:
      break;
  }
  return metrics.failed;
}

// Logs the end of a workload. Each VM has an allowance of lines, so that a
// client that starts and stops workloads in a loop cannot fill the disk.
void LogEnd(LimitedLog& log, const std::string& name, const std::string& vm,
            const WorkloadRun::Progress& end) {
  const LogLevel level = end.error.ok() ? LogLevel::kInfo : LogLevel::kWarning;
  LogFields fields = {
      {"workload", name}, {"vm", vm}, {"state", ToString(end.state)}};
  if (const mmu::Reason reason = mmu::DetailOf(end.error).reason;
      reason != mmu::Reason::kNone) {
    fields.emplace_back("reason", std::string(mmu::ToString(reason)));
  }
  fields.emplace_back("duration", absl::FormatDuration(end.running_time));
  log.SayDropped();
  log.Write(absl::StrCat("workload ", vm, " ", LogLevelName(level)), level,
            "workload ended", fields);
}

}  // namespace

WorkloadStore::~WorkloadStore() {
  StopAll();
  finished_.Join();
}

absl::StatusOr<std::shared_ptr<WorkloadRun>> WorkloadStore::Start(
    const VmUse& vm, WorkloadDescription description,
    mmu::WorkloadOptions options) {
  finished_.Join();
  absl::StatusOr<VmUse> use = vms_.ForGuest(vm);
  if (!use.ok()) return use.status();
  if (!vm->TryBeginWorkload()) return WorkloadRunning(vm->name());
  auto entry = std::make_shared<Entry>();
  entry->use = *std::move(use);
  entry->run = std::make_shared<WorkloadRun>(vm->vm(), std::move(description));
  // The guest runs only once there is a thread for its end: a refused start has
  // no effect on the guest.
  const absl::Status started =
      entry->run->Start(std::move(options), [&]() -> absl::Status {
        mmu::MutexLock lock(mu_);
        if (drain_.is_draining()) return DrainingError();
        // The thread takes the lock before it uses anything set below.
        absl::StatusOr<std::thread> thread =
            mmu::MakeThread([this, entry] { Run(entry); });
        if (!thread.ok()) return thread.status();
        entry->thread = *std::move(thread);
        running_.insert(entry);
        ++metrics_.running;
        vm->SetWorkload(entry->run);
        return absl::OkStatus();
      });
  if (!started.ok()) {
    vm->GiveUpWorkload();
    return started;
  }
  return entry->run;
}

void WorkloadStore::Run(const EntryPtr& entry) {
  WorkloadRun& run = *entry->run;
  run.RunToEnd([&](const WorkloadRun::Progress& end) {
    LogEnd(log_, run.description().name, entry->use->name(), end);
    // Released before the workload counts as ended, so that a client that sees
    // it ended can delete the VM.
    entry->use.Release();
    mmu::MutexLock lock(mu_);
    --metrics_.running;
    ++CountOf(metrics_, end.state);
    running_.erase(entry);
    // The destructor joins this thread, so the store exists until the thread
    // ends.
    finished_.Add(std::move(entry->thread));
  });
}

void WorkloadStore::StopAll() {
  std::vector<EntryPtr> running;
  {
    mmu::MutexLock lock(mu_);
    running.assign(running_.begin(), running_.end());
  }
  for (const EntryPtr& entry : running) entry->run->StopNow();
  for (const EntryPtr& entry : running) entry->run->AwaitFinished();
}

WorkloadMetrics WorkloadStore::Metrics() const {
  mmu::MutexLock lock(mu_);
  return metrics_;
}

}  // namespace mmud
