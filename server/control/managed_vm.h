// A VM of the daemon: mmu_core's Vm under a name, with what the API knows
// about it and mmu_core does not.

#ifndef SERVER_CONTROL_MANAGED_VM_H_
#define SERVER_CONTROL_MANAGED_VM_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "server/base/labels.h"
#include "server/base/wall_time.h"
#include "server/control/dirty_rate_history.h"
#include "server/control/vcpu_pause.h"

namespace mmud {

class WorkloadRun;

// Thread-safe. Lives as long as a VmUse of it, see vm_registry.h.
class ManagedVm {
 public:
  // `has_metrics_label`: dirty_pages_total has a series of this VM's own.
  enum class MetricsLabel : uint8_t { kOwn, kOther };
  ManagedVm(std::string name, std::unique_ptr<mmu::Vm> vm, WallTime created,
            MetricsLabel label, Labels labels = {});
  ~ManagedVm();

  const std::string& name() const { return name_; }
  // No other VM has it, whenever it is made.
  const std::string& uid() const { return uid_; }
  mmu::Vm& vm() { return *vm_; }
  const mmu::Vm& vm() const { return *vm_; }
  WallTime create_time() const { return create_time_; }
  MetricsLabel metrics_label() const { return label_; }

  // Calls should end soon: the VM is about to go. There is no way back.
  bool deleting() const { return deleting_.load(std::memory_order_acquire); }
  void set_deleting() { deleting_.store(true, std::memory_order_release); }

  // The slot with this id, if it exists.
  absl::optional<mmu::MemslotInfo> FindSlot(uint32_t slot) const;
  // The slots, ascending by address.
  std::vector<mmu::MemslotInfo> SortedSlots() const;

  // Changes of slots and of other settings are made under this lock, so that an
  // etag that was checked is still true when the change is made.
  absl::Mutex& slots_mu() ABSL_LOCK_RETURNED(slots_mu_) { return slots_mu_; }

  // Checked by whoever sets them. Changes need slots_mu().
  Labels labels() const;
  void set_labels(Labels labels) ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_mu_);

  // One start of a dirty log at a time: true if there was none. Then
  // EndDirtyLogStart must follow.
  bool TryBeginDirtyLogStart() { return !starting_log_.exchange(true); }
  void EndDirtyLogStart() { starting_log_.store(false); }

  DirtyRateHistory& dirty_rate() { return dirty_rate_; }
  // The counters as they are now.
  DirtySample SampleDirty(mmu::MonotonicTime now) const;

  // One split or recovery at a time: true if there was none. Then
  // EndSplit must follow.
  bool TryBeginSplit() { return !splitting_.exchange(true); }
  void EndSplit() { splitting_.store(false); }
  bool is_splitting() const { return splitting_.load(); }

  // The pause of its vCPUs. Whoever extends it has the PauseKeeper watch it.
  VcpuPause& pause() { return pause_; }
  const VcpuPause& pause() const { return pause_; }

  // The workload that runs or ran last; null if none did.
  std::shared_ptr<WorkloadRun> workload() const;
  // One workload at a time: true if none runs or is being started. Then
  // SetWorkload or GiveUpWorkload must follow.
  bool TryBeginWorkload();
  // The one that is being started is the workload from now on.
  void SetWorkload(std::shared_ptr<WorkloadRun> run);
  // None is started: the workload is what it was.
  void GiveUpWorkload();

 private:
  const std::string name_;
  const std::string uid_;
  const WallTime create_time_;
  const MetricsLabel label_;
  const std::unique_ptr<mmu::Vm> vm_;
  VcpuPause pause_{*vm_};
  std::atomic<bool> deleting_{false};   // released: set before uses are waited
  std::atomic<bool> splitting_{false};  // sequentially consistent flag
  std::atomic<bool> starting_log_{false};  // likewise
  absl::Mutex slots_mu_;
  DirtyRateHistory dirty_rate_;

  mutable absl::Mutex mu_ ABSL_ACQUIRED_AFTER(slots_mu_);
  std::shared_ptr<WorkloadRun> workload_ ABSL_GUARDED_BY(mu_);
  bool starting_workload_ ABSL_GUARDED_BY(mu_) = false;
  Labels labels_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_CONTROL_MANAGED_VM_H_
