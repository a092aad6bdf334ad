// The current dirty log of a VM, if any.
//
// A VM has one log at most. Every thread that marks pages or asks about them
// looks the log up here; it changes only when a log begins and when it ends.

#ifndef MMU_CORE_DIRTY_CURRENT_DIRTY_LOG_H_
#define MMU_CORE_DIRTY_CURRENT_DIRTY_LOG_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/slot_log.h"

namespace mmu {

// A VM's log and its start parameters.
struct VmDirtyLog {
  VmDirtyLog(const DirtyLogStart& start, uint64_t first_epoch,
             DirtyLog::Slots slots)
      : config(start.config),
        ttl(start.ttl),
        log(start.id, first_epoch, start.claim, std::move(slots), start.now,
            DirtyLog::Begin::kClosed) {}

  DirtyLogView View() const;
  // Allocates nothing.
  MonotonicTime ttl_end() const { return log.last_owner_call() + ttl; }

  const DirtyLogConfig config;
  const absl::Duration ttl;
  DirtyLog log;
};

// The VM's log, or none. Thread-safe; Begin and End are called under
// slots_lock.
class CurrentDirtyLog {
 public:
  // Null without a log. Also returns a log that is being switched on or off.
  std::shared_ptr<VmDirtyLog> Get() const;
  // Null unless there is a log that is on.
  std::shared_ptr<VmDirtyLog> GetOn() const;
  // Null without a log, or if the slot, of address space 0, is not logged.
  std::shared_ptr<SlotLog> FindSlot(uint32_t slot) const;
  // The configuration with which the log's slots were started; the default
  // without a log.
  SlotLogConfig ConfigOfSlots() const;
  // The first epoch of the next log. An epoch number is used once in the life
  // of a VM: a client that sealed an epoch of an ended log must not clear pages
  // of the next log.
  uint64_t next_epoch() const;
  void Begin(std::shared_ptr<VmDirtyLog> log);
  void End();

 private:
  mutable Mutex mu_;  // leaf; never held during work on a log
  uint64_t next_epoch_ ABSL_GUARDED_BY(mu_) = 1;
  std::shared_ptr<VmDirtyLog> log_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_CURRENT_DIRTY_LOG_H_
