// Switching a VM's dirty log on and off.

#ifndef SERVER_CONTROL_DIRTY_LOG_CONTROL_H_
#define SERVER_CONTROL_DIRTY_LOG_CONTROL_H_

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/dirty_log_calls.h"
#include "mmu_core/vm/split_job.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/control/managed_vm.h"

namespace mmud {

// The work of the operation that StartDirtyLog returns: splits huge pages at
// the pace that the caller wants, so that switching on finds none left, and
// switches on. Thread-safe. Must not outlive its VM.
class DirtyLogStartJob {
 public:
  // Whatever can be refused before the work begins is: what is wrong with the
  // request, MEMSLOT_NOT_FOUND, DIRTY_LOG_ACTIVE. Starts nothing. Where the log
  // is the caller's own already nothing is split.
  static absl::StatusOr<std::shared_ptr<DirtyLogStartJob>> Create(
      const v1::StartDirtyLogRequest& request, ManagedVm& vm);

  // Call once. After an error, also after Cancel, there is no log of this job.
  absl::StatusOr<v1::StartDirtyLogResponse> Run();
  // Ends a split at its next chunk. What is being switched on stays on.
  void Cancel();

  // Everything but the times.
  v1::StartDirtyLogMetadata Metadata() const;

 private:
  DirtyLogStartJob(ManagedVm& vm, mmu::DirtyLogStart start,
                   std::shared_ptr<mmu::SplitJob> split)
      : vm_(vm),
        start_(std::move(start)),
        split_(std::move(split)),
        state_(split_ == nullptr ? v1::START_DIRTY_LOG_STATE_PROTECTING
                                 : v1::START_DIRTY_LOG_STATE_SPLITTING) {}

  static absl::StatusOr<mmu::DirtyLogView> StartNow(
      const mmu::DirtyLogStart& start, ManagedVm& vm, mmu::MmuCost* cost);
  absl::StatusOr<v1::StartDirtyLogResponse> Work();
  bool cancelled() const;

  ManagedVm& vm_;
  mmu::DirtyLogStart start_;                    // its time is Run's
  const std::shared_ptr<mmu::SplitJob> split_;  // null: no split ahead

  mutable absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  v1::StartDirtyLogState state_ ABSL_GUARDED_BY(mu_);
  // Once it was tried to switch on.
  absl::optional<v1::SplitCounts> splits_ ABSL_GUARDED_BY(mu_);
  mmu::MmuCost cost_ ABSL_GUARDED_BY(mu_);
};

absl::StatusOr<v1::StopDirtyLogResponse> StopDirtyLog(
    const v1::StopDirtyLogRequest& request, ManagedVm& vm);

}  // namespace mmud

#endif  // SERVER_CONTROL_DIRTY_LOG_CONTROL_H_
