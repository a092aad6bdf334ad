// The arguments and results of a VM's dirty-log calls (Vm, vm/vm.h). The state
// of the log itself is in dirty/dirty_log_state.h.

#ifndef MMU_CORE_DIRTY_DIRTY_LOG_CALLS_H_
#define MMU_CORE_DIRTY_DIRTY_LOG_CALLS_H_

#include <cstdint>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/log_owner.h"

namespace mmu {

// The parameters of a log to be started.
struct DirtyLogStart {
  LogId id;        // a new id
  LogClaim claim;  // its owner's key and name, and the lease
  // If the owner makes no call for this long, the log may be stopped
  // (StopAbandonedDirtyLog). Positive.
  absl::Duration ttl = absl::InfiniteDuration();
  DirtyLogConfig config;
  MonotonicTime now;
};

// The current state of a log.
struct DirtyLogView {
  DirtyLogState state;
  DirtyLogConfig config;  // as started; slots: the initial ones
  absl::Duration ttl;
  // state.last_owner_call + ttl.
  MonotonicTime ttl_end;
};

// A start that succeeded, or was repeated.
struct StartResult {
  DirtyLogView log;
  // Huge pages that this start split (DL-02); none if it was repeated.
  uint64_t split_2m_count = 0;
  uint64_t split_1g_count = 0;
};

// The state of one slot in a log, and how the slot logs its pages.
struct SlotLogView {
  SlotLogState state;
  SlotLogConfig config;
};

// The action if a log or slot is to end while it has unacknowledged pages.
enum class Undelivered : uint8_t { kRefuse, kDiscard };

// Whether to restore the slots' huge pages when their log ends (DL-06).
enum class RecoverOnStop : uint8_t { kNo, kYes };

// Stopping a log: the caller and the conditions.
struct DirtyLogStop {
  // The owner's call. Without it the log is stopped by force, without a check
  // of its owner.
  absl::optional<LogCall> by = absl::nullopt;
  // For a stop by force: the log to stop; without it, the current log.
  absl::optional<LogId> log_id = absl::nullopt;
  Undelivered undelivered = Undelivered::kRefuse;
  RecoverOnStop recover = RecoverOnStop::kNo;
};

struct ClearResult {
  uint64_t cleared_page_count = 0;  // sealed before, in flight now (DL-24)
  // Already in flight in this epoch: the clear was repeated.
  uint64_t already_in_flight_page_count = 0;
  // Requested pages that were neither sealed nor in flight in this epoch.
  uint64_t already_clean_page_count = 0;
  uint64_t still_sealed_page_count = 0;  // of the slot, after the call
  // Pages that were not cleared and lost the right to be written nevertheless:
  // the rest of a granule, and pages between cleared ones (DL-17). They stay in
  // the log as they were.
  uint64_t also_protected_page_count = 0;
  uint64_t split_2m_count = 0;  // huge pages split by the clear (DL-26)
  uint64_t split_1g_count = 0;
};

struct StopResult {
  UndeliveredCounts discarded;
  uint64_t recovered_2m_count = 0;
  uint64_t recovered_1g_count = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_DIRTY_LOG_CALLS_H_
