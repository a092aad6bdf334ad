// A VM of the daemon: mmu_core's Vm with a name and the API's own state of it.

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
#include "server/control/ager.h"
#include "server/control/dirty_rate_history.h"
#include "server/control/vcpu_pause.h"
#include "server/control/working_set_sizes.h"

namespace mmud {

class WorkloadRun;

// Thread-safe. Lives as long as there is a VmUse of it, see vm_registry.h.
class ManagedVm {
 public:
  // kOwn: the VM has a series of its own in dirty_pages_total.
  enum class MetricsLabel : uint8_t { kOwn, kOther };
  ManagedVm(std::string name, std::unique_ptr<mmu::Vm> vm, WallTime created,
            MetricsLabel label, Labels labels = {});
  ~ManagedVm();

  const std::string& name() const { return name_; }
  // Unique among all VMs, including deleted ones.
  const std::string& uid() const { return uid_; }
  mmu::Vm& vm() { return *vm_; }
  const mmu::Vm& vm() const { return *vm_; }
  WallTime create_time() const { return create_time_; }
  MetricsLabel metrics_label() const { return label_; }

  // The VM is about to be deleted, so its calls should end soon. Never reset.
  bool deleting() const { return deleting_.load(std::memory_order_acquire); }
  void set_deleting() { deleting_.store(true, std::memory_order_release); }

  // The slot with this id; nullopt if it does not exist.
  absl::optional<mmu::MemslotInfo> FindSlot(uint32_t slot) const;
  // All slots, ascending by address.
  std::vector<mmu::MemslotInfo> SortedSlots() const;

  // Changes of slots and of other settings are made under this lock, so that an
  // etag that was checked is still valid when the change is made.
  absl::Mutex& slots_mu() ABSL_LOCK_RETURNED(slots_mu_) { return slots_mu_; }

  // The caller has checked the labels. Changes need slots_mu().
  Labels labels() const;
  void set_labels(Labels labels) ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_mu_);

  // Begins a start of the dirty log. False if another start is in progress.
  // After true, EndDirtyLogStart must follow.
  bool TryBeginDirtyLogStart() { return !starting_log_.exchange(true); }
  void EndDirtyLogStart() { starting_log_.store(false); }

  DirtyRateHistory& dirty_rate() { return dirty_rate_; }
  // The current counters.
  DirtySample SampleDirty(mmu::MonotonicTime now) const;

  // Begins a split or recovery. False if another one is in progress. After
  // true, EndSplit must follow.
  bool TryBeginSplit() { return !splitting_.exchange(true); }
  void EndSplit() { splitting_.store(false); }
  bool is_splitting() const { return splitting_.load(); }

  // The pause of its vCPUs. Code that extends it must also call
  // PauseKeeper::Watch.
  VcpuPause& pause() { return pause_; }
  const VcpuPause& pause() const { return pause_; }

  // Whoever changes the ager's settings must also call AgingThread::Wake.
  Ager& ager() { return ager_; }
  WorkingSetSizes& working_set_sizes() { return working_set_sizes_; }
  const WorkingSetSizes& working_set_sizes() const {
    return working_set_sizes_;
  }

  // The workload that runs or ran last; null if there was none.
  std::shared_ptr<WorkloadRun> workload() const;
  // Begins to start a workload. False if one runs or is being started. After
  // true, SetWorkload or GiveUpWorkload must follow.
  bool TryBeginWorkload();
  // Makes the workload that is being started the VM's workload.
  void SetWorkload(std::shared_ptr<WorkloadRun> run);
  // Ends the start without a workload: the VM's workload is the same as before.
  void GiveUpWorkload();

 private:
  const std::string name_;
  const std::string uid_;
  const WallTime create_time_;
  const MetricsLabel label_;
  const std::unique_ptr<mmu::Vm> vm_;
  VcpuPause pause_{*vm_};
  WorkingSetSizes working_set_sizes_;
  Ager ager_{*vm_, working_set_sizes_};
  std::atomic<bool> deleting_{false};   // release, before uses are waited for
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
