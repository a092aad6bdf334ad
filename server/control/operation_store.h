// Long-running operations over threads.

#ifndef SERVER_CONTROL_OPERATION_STORE_H_
#define SERVER_CONTROL_OPERATION_STORE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "server/base/budget.h"
#include "server/base/resource_names.h"
#include "server/control/drain_state.h"
#include "server/control/operation.h"
#include "server/control/operation_metrics.h"
#include "server/log/limited_log.h"

namespace mmud {

// What an operation does. All functions are called without a lock held.
struct OperationSpec {
  OperationMethod method = OperationMethod::kSplitHugePages;
  std::string vm;  // the name of the one that it works on, for the log
  // Does the work on a thread of its own. A cancelled one returns
  // CancelledOperation().
  std::function<absl::StatusOr<PackedMessage>()> run;
  // Progress, from any thread while `run` goes on and once after it.
  std::function<PackedMessage()> metadata;
  // Asks `run` to stop at its next safe point; from any thread, repeatedly.
  std::function<void()> cancel;
  // What UpdateSplit, PauseSplit and ResumeSplit act on; null in operations
  // that are no split.
  std::shared_ptr<mmu::SplitJob> split;
};

// What `run` returns after `cancel`.
absl::Status CancelledOperation();

// Keeps the operations that run, and the newest of those that are done.
// Thread-safe.
class OperationStore {
 public:
  struct Limits {
    int64_t max_running = 64;
    size_t max_done = 1000;
  };

  // `drain` and `log` outlive this.
  OperationStore(const Limits& limits, const DrainState& drain, LimitedLog& log)
      : limits_(limits),
        drain_(drain),
        log_(log),
        budget_("max_operations", limits.max_running, "operations run",
                absl::Seconds(1)) {}
  // Cancels what runs and waits for it.
  ~OperationStore();

  // Runs `spec` on a new thread. RESOURCE_EXHAUSTED LIMIT_EXCEEDED,
  // UNAVAILABLE DRAINING or THREADS_EXHAUSTED; then no function of `spec` was
  // or will be called.
  absl::StatusOr<OperationView> Start(OperationSpec spec);

  // `name` is what ParseOperationName returns, here and below. NOT_FOUND
  // OPERATION_NOT_FOUND, also for the other functions.
  absl::StatusOr<OperationView> Get(const std::string& name) const;
  // An operation and its place in the order in which operations began, 1 or
  // more.
  struct Listed {
    uint64_t place = 0;
    OperationView operation;
  };
  // At most `limit` operations with places behind `after`, the oldest first.
  std::vector<Listed> List(uint64_t after, size_t limit) const;
  // Forgets a finished one. FAILED_PRECONDITION OPERATION_RUNNING.
  absl::Status Delete(const std::string& name);
  // OK also if it is done.
  absl::Status Cancel(const std::string& name);
  // Calls `done` once the operation is done, or is known no more; at once if
  // it is so already, otherwise from the operation's thread, without a lock
  // held. Nobody waits meanwhile. The ticket is for Forget.
  uint64_t NotifyWhenDone(const std::string& name, std::function<void()> done);
  // `done` is not called any more, though it may be running.
  void Forget(const std::string& name, uint64_t ticket);
  // The job of a running split. It works on a VM only as long as that VM is
  // used, but may be asked to change at any time. FAILED_PRECONDITION
  // OPERATION_DONE if the operation is finished or no split.
  absl::StatusOr<std::shared_ptr<mmu::SplitJob>> FindSplit(
      const std::string& name) const;

  // Cancels all that run and waits until they stopped or the time is over.
  // Returns the operations that were running, as they are then. REQUIRES: the
  // drain has begun.
  std::vector<OperationView> Drain(absl::Duration timeout);

  OperationMetrics Metrics() const;

  // The splits that run.
  struct SplitSummary {
    int64_t running = 0;
    int64_t remaining_bytes = 0;
  };
  SplitSummary Splits() const;

  BudgetUse Use() const { return budget_.Use(); }

 private:
  struct Entry {
    const std::string name = NewOperationName();
    OperationSpec spec;
    mmu::MonotonicTime start_time;
    std::thread thread;     // guarded by mu_
    bool done = false;      // guarded by mu_
    OperationView outcome;  // once done; guarded by mu_
    Budget::Place budget;   // until done
    std::map<uint64_t, std::function<void()>> watchers;  // guarded by mu_
  };
  using EntryPtr = std::shared_ptr<Entry>;

  absl::StatusOr<EntryPtr> Find(const std::string& name) const;
  // Null if there is none.
  EntryPtr FindLocked(const std::string& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  OperationView Describe(const EntryPtr& entry) const;
  void Run(const EntryPtr& entry);
  void ForgetOldLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void JoinFinished();

  const Limits limits_;
  const DrainState& drain_;
  LimitedLog& log_;
  Budget budget_;
  mutable mmu::Mutex mu_;
  mmu::CondVar changed_;
  // By place, and the places by name.
  std::map<uint64_t, EntryPtr> entries_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::string, uint64_t> places_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> finished_ ABSL_GUARDED_BY(mu_);
  uint64_t last_place_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t last_ticket_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t running_ ABSL_GUARDED_BY(mu_) = 0;
  OperationMetrics metrics_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_CONTROL_OPERATION_STORE_H_
