#include "server/control/operation_store.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/sync/timed_wait.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "server/base/budget.h"
#include "server/base/errors.h"
#include "server/base/status_codes.h"
#include "server/control/operation_metrics.h"
#include "server/log/limited_log.h"
#include "server/log/logging.h"

namespace mmud {
namespace {

OperationMethodMetrics& Of(OperationMetrics& metrics, OperationMethod method) {
  return metrics[static_cast<int>(method)];
}

// Logs the end of an operation. Each VM has an allowance of lines for each
// method, so that a client that starts and cancels work in a loop cannot fill
// the disk.
void LogEnd(LimitedLog& log, const OperationView& outcome,
            OperationMethod method, const std::string& vm,
            absl::Duration duration) {
  const absl::Status& status = outcome.error;
  const bool expected = status.ok() || absl::IsCancelled(status);
  const LogLevel level = expected ? LogLevel::kInfo : LogLevel::kWarning;
  LogFields fields = {
      {"operation", outcome.name},
      {"method", ToString(method)},
      {"vm", vm},
      {"code", StatusCodeName(static_cast<int>(status.code()))}};
  if (const mmu::Reason reason = mmu::DetailOf(status).reason;
      reason != mmu::Reason::kNone) {
    fields.emplace_back("reason", std::string(mmu::ToString(reason)));
  }
  fields.emplace_back("duration", absl::FormatDuration(duration));
  log.SayDropped();
  log.Write(absl::StrCat("operation ", vm, " ", ToString(method), " ",
                         LogLevelName(level)),
            level, "operation ended", fields);
}

}  // namespace

absl::Status CancelledOperation() {
  return ApiError(absl::StatusCode::kCancelled,
                  mmu::Reason::kOperationCancelled,
                  "the operation was cancelled; its work so far is not undone");
}

OperationStore::~OperationStore() {
  Drain(absl::InfiniteDuration());
  finished_.Join();
}

absl::StatusOr<OperationView> OperationStore::Start(OperationSpec spec) {
  finished_.Join();
  auto entry = std::make_shared<Entry>();
  entry->spec = std::move(spec);
  entry->start_time = mmu::MonotonicTime::Now();
  absl::StatusOr<Budget::Place> place = budget_.Take();
  if (!place.ok()) return place.status();
  entry->budget = *std::move(place);
  {
    mmu::MutexLock lock(mu_);
    if (drain_.is_draining()) return DrainingError();
    // The thread takes the lock before it uses anything set below.
    absl::StatusOr<std::thread> thread =
        mmu::MakeThread([this, entry] { Run(entry); });
    if (!thread.ok()) return thread.status();
    entry->thread = *std::move(thread);
    entries_[++last_place_] = entry;
    places_[entry->name] = last_place_;
    ++running_;
    ++Of(metrics_, entry->spec.method).running;
  }
  return Describe(entry);
}

void OperationStore::Run(const EntryPtr& entry) {
  absl::StatusOr<PackedMessage> result = entry->spec.run();
  OperationView outcome;
  outcome.name = entry->name;
  outcome.metadata = entry->spec.metadata();
  outcome.done = true;
  outcome.error = result.status();
  if (result.ok()) outcome.response = *std::move(result);
  // The captures of the functions, above all uses of VMs, are released before
  // the operation counts as done: a client that sees it done can delete the VM.
  OperationSpec finished;
  {
    mmu::MutexLock lock(mu_);
    finished = std::move(entry->spec);
    entry->spec = OperationSpec();
    entry->spec.method = finished.method;
    // Until the block below, readers see the operation as running, with its
    // last metadata.
    entry->spec.metadata = [metadata = outcome.metadata] { return metadata; };
    entry->spec.cancel = [] {};
  }
  const OperationMethod method = finished.method;
  const std::string vm = std::move(finished.vm);
  const absl::StatusCode code = outcome.error.code();
  finished = OperationSpec();
  // Released before the operation counts as done, so that a client that sees it
  // done can start the next one.
  entry->budget.Release();
  const absl::Duration duration = mmu::MonotonicTime::Now() - entry->start_time;
  LogEnd(log_, outcome, method, vm, duration);
  std::map<uint64_t, std::function<void()>> watchers;
  {
    mmu::MutexLock lock(mu_);
    entry->outcome = std::move(outcome);
    entry->done = true;
    --running_;
    OperationMethodMetrics& metrics = Of(metrics_, method);
    --metrics.running;
    ++metrics.finished[static_cast<int>(code)];
    metrics.duration.Record(absl::ToInt64Nanoseconds(duration));
    // The destructor joins this thread, so the store exists until the thread
    // ends.
    finished_.Add(std::move(entry->thread));
    watchers.swap(entry->watchers);
    ForgetOldLocked();
    changed_.NotifyAll();
  }
  for (const auto& [ticket, done] : watchers) done();
}

absl::StatusOr<OperationView> OperationStore::Get(
    const std::string& name) const {
  absl::StatusOr<EntryPtr> entry = Find(name);
  if (!entry.ok()) return entry.status();
  return Describe(*entry);
}

std::vector<OperationStore::Listed> OperationStore::List(uint64_t after,
                                                         size_t limit) const {
  std::vector<std::pair<uint64_t, EntryPtr>> found;
  {
    mmu::MutexLock lock(mu_);
    for (auto it = entries_.upper_bound(after);
         it != entries_.end() && found.size() < limit; ++it) {
      found.emplace_back(it->first, it->second);
    }
  }
  std::vector<Listed> listed;
  for (const auto& [place, entry] : found) {
    listed.push_back({place, Describe(entry)});
  }
  return listed;
}

absl::Status OperationStore::Delete(const std::string& name) {
  mmu::MutexLock lock(mu_);
  const EntryPtr entry = FindLocked(name);
  if (entry == nullptr) return OperationNotFound(name);
  if (!entry->done) {
    return WithResource(
        ApiError(absl::StatusCode::kFailedPrecondition,
                 mmu::Reason::kOperationRunning,
                 absl::StrCat(name, " runs; cancel it or wait for its end")),
        "google.longrunning.Operation", name);
  }
  entries_.erase(places_.at(name));
  places_.erase(name);
  return absl::OkStatus();
}

absl::Status OperationStore::Cancel(const std::string& name) {
  std::function<void()> cancel;
  {
    mmu::MutexLock lock(mu_);
    const EntryPtr entry = FindLocked(name);
    if (entry == nullptr) return OperationNotFound(name);
    if (entry->done) return absl::OkStatus();
    cancel = entry->spec.cancel;
  }
  cancel();
  return absl::OkStatus();
}

uint64_t OperationStore::NotifyWhenDone(const std::string& name,
                                        std::function<void()> done) {
  {
    mmu::MutexLock lock(mu_);
    const EntryPtr entry = FindLocked(name);
    if (entry != nullptr && !entry->done) {
      entry->watchers.emplace(++last_ticket_, std::move(done));
      return last_ticket_;
    }
  }
  done();
  return 0;
}

void OperationStore::Forget(const std::string& name, uint64_t ticket) {
  std::function<void()> forgotten;  // destroyed without the lock
  mmu::MutexLock lock(mu_);
  const EntryPtr entry = FindLocked(name);
  if (entry == nullptr) return;
  const auto watcher = entry->watchers.find(ticket);
  if (watcher == entry->watchers.end()) return;
  forgotten = std::move(watcher->second);
  entry->watchers.erase(watcher);
}

absl::StatusOr<std::shared_ptr<mmu::SplitJob>> OperationStore::FindSplit(
    const std::string& name) const {
  absl::StatusOr<EntryPtr> entry = Find(name);
  if (!entry.ok()) return entry.status();
  mmu::MutexLock lock(mu_);
  if ((*entry)->spec.split != nullptr) return (*entry)->spec.split;
  return WithResource(
      ApiError(
          absl::StatusCode::kFailedPrecondition, mmu::Reason::kOperationDone,
          absl::StrCat(name, " is finished, or is not a split of huge pages")),
      "google.longrunning.Operation", name);
}

std::vector<OperationView> OperationStore::Drain(absl::Duration timeout) {
  std::vector<EntryPtr> running;
  std::vector<std::function<void()>> cancels;
  {
    mmu::MutexLock lock(mu_);
    for (const auto& [place, entry] : entries_) {
      if (entry->done) continue;
      running.push_back(entry);
      cancels.push_back(entry->spec.cancel);
    }
  }
  for (const auto& cancel : cancels) cancel();
  const mmu::MonotonicTime deadline = mmu::MonotonicTime::Now() + timeout;
  {
    mmu::MutexLock lock(mu_);
    while (running_ > 0 && mmu::WaitUntil(changed_, mu_, deadline)) {
    }
  }
  std::vector<OperationView> operations;
  for (const EntryPtr& entry : running) operations.push_back(Describe(entry));
  return operations;
}

OperationMetrics OperationStore::Metrics() const {
  mmu::MutexLock lock(mu_);
  return metrics_;
}

OperationStore::SplitSummary OperationStore::Splits() const {
  std::vector<std::shared_ptr<mmu::SplitJob>> jobs;
  {
    mmu::MutexLock lock(mu_);
    for (const auto& [place, entry] : entries_) {
      if (entry->spec.split != nullptr) jobs.push_back(entry->spec.split);
    }
  }
  SplitSummary summary;
  for (const auto& job : jobs) {
    const mmu::SplitProgress progress = job->Progress();
    ++summary.running;
    summary.remaining_bytes += progress.total_bytes - progress.done_bytes;
  }
  return summary;
}

absl::StatusOr<OperationStore::EntryPtr> OperationStore::Find(
    const std::string& name) const {
  mmu::MutexLock lock(mu_);
  EntryPtr entry = FindLocked(name);
  if (entry == nullptr) return OperationNotFound(name);
  return entry;
}

OperationStore::EntryPtr OperationStore::FindLocked(
    const std::string& name) const {
  const auto place = places_.find(name);
  return place == places_.end() ? nullptr : entries_.at(place->second);
}

OperationView OperationStore::Describe(const EntryPtr& entry) const {
  std::function<PackedMessage()> metadata;
  {
    mmu::MutexLock lock(mu_);
    if (entry->done) return entry->outcome;
    metadata = entry->spec.metadata;
  }
  OperationView operation;
  operation.name = entry->name;
  operation.metadata = metadata();
  return operation;
}

void OperationStore::ForgetOldLocked() {
  size_t done = entries_.size() - static_cast<size_t>(running_);
  for (auto it = entries_.begin();
       it != entries_.end() && done > limits_.max_done;) {
    if (it->second->done) {
      places_.erase(it->second->name);
      it = entries_.erase(it);
      --done;
    } else {
      ++it;
    }
  }
}

}  // namespace mmud
