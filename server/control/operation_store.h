// Long-running operations, each on a thread.

#ifndef SERVER_CONTROL_OPERATION_STORE_H_
#define SERVER_CONTROL_OPERATION_STORE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
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
#include "server/control/finished_threads.h"
#include "server/control/operation.h"
#include "server/control/operation_metrics.h"
#include "server/log/limited_log.h"

namespace mmud {

// The functions of an operation. All are called without a lock held.
struct OperationSpec {
  OperationMethod method = OperationMethod::kSplitHugePages;
  std::string vm;  // name of its VM, for the log
  // Does the work on a thread of its own. If it was cancelled, it returns
  // CancelledOperation().
  std::function<absl::StatusOr<PackedMessage>()> run;
  // Returns the progress. Called from any thread while `run` goes on, and once
  // after it.
  std::function<PackedMessage()> metadata;
  // Asks `run` to stop at its next safe point. Called from any thread, maybe
  // repeatedly.
  std::function<void()> cancel;
  // The job that UpdateSplit, PauseSplit and ResumeSplit act on; null if the
  // operation is not a split.
  std::shared_ptr<mmu::SplitJob> split;
};

// The error that `run` returns after `cancel`.
absl::Status CancelledOperation();

// Keeps the running operations, and the newest of the finished ones.
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
  // Cancels the running operations and waits for them.
  ~OperationStore();

  // Runs `spec` on a new thread. RESOURCE_EXHAUSTED LIMIT_EXCEEDED, UNAVAILABLE
  // DRAINING or THREADS_EXHAUSTED; after an error no function of `spec` was or
  // will be called.
  absl::StatusOr<OperationView> Start(OperationSpec spec);

  // `name`, here and below, is in the form that ParseOperationName returns.
  // NOT_FOUND OPERATION_NOT_FOUND, here and for the other functions.
  absl::StatusOr<OperationView> Get(const std::string& name) const;
  // An operation and its number in the order in which operations began, 1 or
  // more.
  struct Listed {
    uint64_t place = 0;
    OperationView operation;
  };
  // At most `limit` operations with numbers above `after`, the oldest first.
  std::vector<Listed> List(uint64_t after, size_t limit) const;
  // Removes a finished operation. FAILED_PRECONDITION OPERATION_RUNNING.
  absl::Status Delete(const std::string& name);
  // Asks the operation to stop. OK also if the operation is done.
  absl::Status Cancel(const std::string& name);
  // Calls `done` once the operation is done or removed. If this is already so,
  // calls `done` at once, otherwise from the operation's thread, without a lock
  // held. No thread waits meanwhile. The returned ticket is for Forget.
  uint64_t NotifyWhenDone(const std::string& name, std::function<void()> done);
  // Cancels NotifyWhenDone: `done` will not be called any more, though it may
  // be running.
  void Forget(const std::string& name, uint64_t ticket);
  // The job of a running split. The job works on its VM only as long as the
  // operation uses the VM, but can be changed at any time. FAILED_PRECONDITION
  // OPERATION_DONE if the operation is finished or is not a split.
  absl::StatusOr<std::shared_ptr<mmu::SplitJob>> FindSplit(
      const std::string& name) const;

  // Cancels all running operations and waits until they have stopped or the
  // time is over. Returns the operations that were running, in their state
  // after the wait. REQUIRES: the drain has begun.
  std::vector<OperationView> Drain(absl::Duration timeout);

  OperationMetrics Metrics() const;

  // A summary of the running splits.
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
    OperationView outcome;  // set once done; guarded by mu_
    Budget::Place budget;   // until done
    std::map<uint64_t, std::function<void()>> watchers;  // guarded by mu_
  };
  using EntryPtr = std::shared_ptr<Entry>;

  absl::StatusOr<EntryPtr> Find(const std::string& name) const;
  // Null if the store has no operation of that name.
  EntryPtr FindLocked(const std::string& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  OperationView Describe(const EntryPtr& entry) const;
  void Run(const EntryPtr& entry);
  void ForgetOldLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Limits limits_;
  const DrainState& drain_;
  LimitedLog& log_;
  Budget budget_;
  mutable mmu::Mutex mu_;
  mmu::CondVar changed_;
  // The operations by number, and the numbers by name.
  std::map<uint64_t, EntryPtr> entries_ ABSL_GUARDED_BY(mu_);
  std::unordered_map<std::string, uint64_t> places_ ABSL_GUARDED_BY(mu_);
  FinishedThreads finished_;
  uint64_t last_place_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t last_ticket_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t running_ ABSL_GUARDED_BY(mu_) = 0;
  OperationMetrics metrics_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_CONTROL_OPERATION_STORE_H_
