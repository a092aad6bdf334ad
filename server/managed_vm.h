// A VM of the daemon: mmu_core's Vm under a name, with what the API knows
// about it and mmu_core does not.

#ifndef SERVER_MANAGED_VM_H_
#define SERVER_MANAGED_VM_H_

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
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_config.h"
#include "server/base/wall_time.h"
#include "server/dirty_rate_history.h"

namespace mmud {

class WorkloadRun;

// What StartDirtyLog was told and mmu_core need not know.
struct DirtyLogSettings {
  absl::Duration ttl = absl::InfiniteDuration();
  WallTime start_time = WallTime::Now();
  mmu::MonotonicTime last_used;

  mmu::MonotonicTime expires() const { return last_used + ttl; }
};

// Thread-safe. Lives as long as a VmUse of it, see vm_registry.h.
class ManagedVm {
 public:
  // `has_metrics_label`: dirty_pages_total has a series of this VM's own.
  enum class MetricsLabel : uint8_t { kOwn, kOther };
  ManagedVm(std::string name, std::unique_ptr<mmu::Vm> vm, WallTime created,
            MetricsLabel label);
  ~ManagedVm();

  const std::string& name() const { return name_; }
  mmu::Vm& vm() { return *vm_; }
  const mmu::Vm& vm() const { return *vm_; }
  WallTime create_time() const { return create_time_; }
  MetricsLabel metrics_label() const { return label_; }

  // Calls should end soon: the VM is about to go. There is no way back.
  bool deleting() const { return deleting_.load(std::memory_order_acquire); }
  void set_deleting() { deleting_.store(true, std::memory_order_release); }

  // The slot of address space 0 with this id, if it exists.
  absl::optional<mmu::MemslotInfo> FindSlot(uint32_t slot) const;
  // Slots of all address spaces, ascending by address.
  std::vector<mmu::MemslotInfo> SortedSlots() const;

  // Changes of slots are made under this lock, so that an etag that was
  // checked is still true when the change is made.
  absl::Mutex& slots_mu() ABSL_LOCK_RETURNED(slots_mu_) { return slots_mu_; }

  // Starting and stopping the dirty log happens under this lock.
  absl::Mutex& dirty_log_mu() ABSL_LOCK_RETURNED(dirty_log_mu_) {
    return dirty_log_mu_;
  }
  absl::optional<DirtyLogSettings> dirty_log_settings() const;
  void set_dirty_log_settings(absl::optional<DirtyLogSettings> settings);
  // Somebody harvests: the time to live begins again.
  void TouchDirtyLog(mmu::MonotonicTime now);

  DirtyRateHistory& dirty_rate() { return dirty_rate_; }
  // The counters as they are now.
  DirtySample SampleDirty(mmu::MonotonicTime now) const;

  // One split or recovery at a time: true if there was none. Then
  // EndSplit must follow.
  bool TryBeginSplit() { return !splitting_.exchange(true); }
  void EndSplit() { splitting_.store(false); }
  bool is_splitting() const { return splitting_.load(); }

  // The workload that runs or ran last; null if none did.
  std::shared_ptr<WorkloadRun> workload() const;
  // Makes `run` the workload unless one is still running: then false.
  bool TrySetWorkload(std::shared_ptr<WorkloadRun> run);

 private:
  const std::string name_;
  const WallTime create_time_;
  const MetricsLabel label_;
  const std::unique_ptr<mmu::Vm> vm_;
  std::atomic<bool> deleting_{false};   // released: set before uses are waited
  std::atomic<bool> splitting_{false};  // sequentially consistent flag
  absl::Mutex slots_mu_;
  absl::Mutex dirty_log_mu_;
  DirtyRateHistory dirty_rate_;

  mutable absl::Mutex mu_ ABSL_ACQUIRED_AFTER(slots_mu_, dirty_log_mu_);
  absl::optional<DirtyLogSettings> settings_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<WorkloadRun> workload_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmud

#endif  // SERVER_MANAGED_VM_H_
