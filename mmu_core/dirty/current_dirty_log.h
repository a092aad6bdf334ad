// The dirty log that a VM has at the moment, or none.
//
// A VM has one log at most. It is found by everybody who marks pages or asks
// about them, and replaced only when it begins and when it ends.

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

// A VM's log with what it was started with.
struct VmDirtyLog {
  VmDirtyLog(const DirtyLogStart& start, uint64_t first_epoch,
             DirtyLog::Slots slots)
      : config(start.config),
        ttl(start.ttl),
        log(start.id, first_epoch, start.claim, std::move(slots), start.now,
            DirtyLog::Begin::kClosed) {}

  DirtyLogView View() const;
  // Needs no memory.
  MonotonicTime ttl_end() const { return log.last_owner_call() + ttl; }

  const DirtyLogConfig config;
  const absl::Duration ttl;
  DirtyLog log;
};

// The VM's log, or none. Thread-safe; Begin and End are called under
// slots_lock.
class CurrentDirtyLog {
 public:
  // Null if there is none. Also one that is being switched on or off.
  std::shared_ptr<VmDirtyLog> Get() const;
  // Null if there is none that is on.
  std::shared_ptr<VmDirtyLog> GetOn() const;
  // Null if there is none, or the slot, of address space 0, is not in it.
  std::shared_ptr<SlotLog> FindSlot(uint32_t slot) const;
  // As the slots that log were told to; the default without a log.
  SlotLogConfig ConfigOfSlots() const;
  // An epoch's number is used once in the life of a VM: a client that sealed an
  // epoch of a log that is gone must not clear pages of the next log.
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
