#include "server/operation_store.h"

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
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/any.pb.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/sync/mutex.h"
#include "mmu_core/sync/timed_wait.h"
#include "mmu_core/vm/split_job.h"
#include "server/base/budget.h"
#include "server/base/errors.h"
#include "server/base/resource_names.h"
#include "server/base/status_mapping.h"
#include "server/log/call_facts.h"
#include "server/log/limited_log.h"
#include "server/logging.h"
#include "server/operation_metrics.h"

namespace mmud {
namespace {

OperationMethodMetrics& Of(OperationMetrics& metrics, OperationMethod method) {
  return metrics[static_cast<int>(method)];
}

// Each VM has an allowance of lines for each method: whoever starts and cancels
// work in a loop fills no disk.
void LogEnd(LimitedLog& log, const google::longrunning::Operation& outcome,
            OperationMethod method, const absl::Status& status,
            absl::Duration duration) {
  const bool expected = status.ok() || absl::IsCancelled(status);
  const LogLevel level = expected ? LogLevel::kInfo : LogLevel::kWarning;
  const std::string vm = FactsOf(outcome.metadata()).vm;
  LogFields fields = {
      {"operation", outcome.name()},
      {"method", ToString(method)},
      {"vm", vm},
      {"code", StatusCodeName(static_cast<int>(status.code()))}};
  if (const std::string reason = mmu::DetailOf(status).reason;
      !reason.empty()) {
    fields.emplace_back("reason", reason);
  }
  fields.emplace_back("duration", absl::FormatDuration(duration));
  log.SayDropped();
  log.Write(absl::StrCat("operation ", vm, " ", ToString(method), " ",
                         LogLevelName(level)),
            level, "operation ended", fields);
}

}  // namespace

absl::Status CancelledOperation() {
  return ApiError(absl::StatusCode::kCancelled, "OPERATION_CANCELLED",
                  "the operation was cancelled; what it did stays done");
}

OperationStore::~OperationStore() {
  Drain(absl::InfiniteDuration());
  JoinFinished();
}

absl::StatusOr<google::longrunning::Operation> OperationStore::Start(
    OperationSpec spec) {
  JoinFinished();
  auto entry = std::make_shared<Entry>();
  entry->spec = std::move(spec);
  entry->start_time = mmu::MonotonicTime::Now();
  if (entry->spec.method != OperationMethod::kStartWorkload) {
    absl::StatusOr<Budget::Place> place = budget_.Take();
    if (!place.ok()) return place.status();
    entry->place = *std::move(place);
  }
  {
    mmu::MutexLock lock(mu_);
    if (drain_.is_draining()) return DrainingError();
    entry->id = last_id_ + 1;
    // It takes the lock before it looks for anything below.
    absl::StatusOr<std::thread> thread =
        mmu::MakeThread([this, entry] { Run(entry); });
    if (!thread.ok()) return thread.status();
    entry->thread = *std::move(thread);
    ++last_id_;
    entries_[entry->id] = entry;
    ++running_;
    ++Of(metrics_, entry->spec.method).running;
  }
  return Describe(entry);
}

void OperationStore::Run(const EntryPtr& entry) {
  const absl::StatusOr<google::protobuf::Any> result = entry->spec.run();
  google::longrunning::Operation outcome;
  outcome.set_name(OperationName(entry->id));
  *outcome.mutable_metadata() = entry->spec.metadata();
  outcome.set_done(true);
  if (result.ok()) {
    *outcome.mutable_response() = *result;
  } else {
    *outcome.mutable_error() = ToRpcStatus(result.status());
  }
  // What the functions hold, uses of VMs above all, is released before the
  // operation counts as done: who sees it done can delete the VM.
  OperationSpec finished;
  {
    mmu::MutexLock lock(mu_);
    finished = std::move(entry->spec);
    entry->spec = OperationSpec();
    entry->spec.method = finished.method;
    // Seen as running, with its last metadata, until the block below.
    entry->spec.metadata = [metadata = outcome.metadata()] { return metadata; };
    entry->spec.cancel = [] {};
  }
  const OperationMethod method = finished.method;
  finished = OperationSpec();
  // Who sees it done can start the next one.
  entry->place.Release();
  const absl::Duration duration = mmu::MonotonicTime::Now() - entry->start_time;
  LogEnd(log_, outcome, method, result.status(), duration);
  std::map<uint64_t, std::function<void()>> watchers;
  {
    mmu::MutexLock lock(mu_);
    entry->outcome = std::move(outcome);
    entry->done = true;
    --running_;
    OperationMethodMetrics& metrics = Of(metrics_, method);
    --metrics.running;
    ++metrics.finished[static_cast<int>(result.status().code())];
    metrics.duration.Record(absl::ToInt64Nanoseconds(duration));
    // The destructor joins it: this exists until the thread ends.
    finished_.push_back(std::move(entry->thread));
    watchers.swap(entry->watchers);
    ForgetOldLocked();
    changed_.NotifyAll();
  }
  for (const auto& [ticket, done] : watchers) done();
}

absl::StatusOr<google::longrunning::Operation> OperationStore::Get(
    uint64_t id) const {
  absl::StatusOr<EntryPtr> entry = Find(id);
  if (!entry.ok()) return entry.status();
  return Describe(*entry);
}

std::vector<google::longrunning::Operation> OperationStore::List(
    uint64_t after, size_t limit) const {
  std::vector<EntryPtr> found;
  {
    mmu::MutexLock lock(mu_);
    for (auto it = entries_.upper_bound(after);
         it != entries_.end() && found.size() < limit; ++it) {
      found.push_back(it->second);
    }
  }
  std::vector<google::longrunning::Operation> operations;
  for (const EntryPtr& entry : found) operations.push_back(Describe(entry));
  return operations;
}

absl::Status OperationStore::Delete(uint64_t id) {
  mmu::MutexLock lock(mu_);
  const auto it = entries_.find(id);
  if (it == entries_.end()) return OperationNotFound(OperationName(id));
  if (!it->second->done) {
    return WithResource(
        ApiError(absl::StatusCode::kFailedPrecondition, "OPERATION_RUNNING",
                 absl::StrCat(OperationName(id),
                              " runs; cancel it or wait for its end")),
        "google.longrunning.Operation", OperationName(id));
  }
  entries_.erase(it);
  return absl::OkStatus();
}

absl::Status OperationStore::Cancel(uint64_t id) {
  std::function<void()> cancel;
  {
    mmu::MutexLock lock(mu_);
    const auto it = entries_.find(id);
    if (it == entries_.end()) return OperationNotFound(OperationName(id));
    if (it->second->done) return absl::OkStatus();
    cancel = it->second->spec.cancel;
  }
  cancel();
  return absl::OkStatus();
}

uint64_t OperationStore::NotifyWhenDone(uint64_t id,
                                        std::function<void()> done) {
  {
    mmu::MutexLock lock(mu_);
    const auto it = entries_.find(id);
    if (it != entries_.end() && !it->second->done) {
      it->second->watchers.emplace(++last_ticket_, std::move(done));
      return last_ticket_;
    }
  }
  done();
  return 0;
}

void OperationStore::Forget(uint64_t id, uint64_t ticket) {
  std::function<void()> forgotten;  // goes without the lock
  mmu::MutexLock lock(mu_);
  const auto it = entries_.find(id);
  if (it == entries_.end()) return;
  const auto watcher = it->second->watchers.find(ticket);
  if (watcher == it->second->watchers.end()) return;
  forgotten = std::move(watcher->second);
  it->second->watchers.erase(watcher);
}

absl::StatusOr<std::shared_ptr<mmu::SplitJob>> OperationStore::FindSplit(
    uint64_t id) const {
  absl::StatusOr<EntryPtr> entry = Find(id);
  if (!entry.ok()) return entry.status();
  mmu::MutexLock lock(mu_);
  if ((*entry)->spec.split != nullptr) return (*entry)->spec.split;
  return WithResource(
      ApiError(absl::StatusCode::kFailedPrecondition, "OPERATION_DONE",
               absl::StrCat(OperationName(id),
                            " is finished, or is not a split of huge pages")),
      "google.longrunning.Operation", OperationName(id));
}

std::vector<google::longrunning::Operation> OperationStore::Drain(
    absl::Duration timeout) {
  std::vector<EntryPtr> running;
  std::vector<std::function<void()>> cancels;
  {
    mmu::MutexLock lock(mu_);
    for (const auto& [id, entry] : entries_) {
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
  std::vector<google::longrunning::Operation> operations;
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
    for (const auto& [id, entry] : entries_) {
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
    uint64_t id) const {
  mmu::MutexLock lock(mu_);
  const auto it = entries_.find(id);
  if (it == entries_.end()) return OperationNotFound(OperationName(id));
  return it->second;
}

google::longrunning::Operation OperationStore::Describe(
    const EntryPtr& entry) const {
  std::function<google::protobuf::Any()> metadata;
  {
    mmu::MutexLock lock(mu_);
    if (entry->done) return entry->outcome;
    metadata = entry->spec.metadata;
  }
  google::longrunning::Operation operation;
  operation.set_name(OperationName(entry->id));
  *operation.mutable_metadata() = metadata();
  return operation;
}

void OperationStore::ForgetOldLocked() {
  size_t done = entries_.size() - static_cast<size_t>(running_);
  for (auto it = entries_.begin();
       it != entries_.end() && done > limits_.max_done;) {
    if (it->second->done) {
      it = entries_.erase(it);
      --done;
    } else {
      ++it;
    }
  }
}

void OperationStore::JoinFinished() {
  std::vector<std::thread> finished;
  {
    mmu::MutexLock lock(mu_);
    finished.swap(finished_);
  }
  for (std::thread& thread : finished) thread.join();
}

}  // namespace mmud
