// What is said and heard in the calls of a VM's dirty log (Vm, vm/vm.h). What
// the log itself says is in dirty/dirty_log_state.h.

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

// A log that shall be started.
struct DirtyLogStart {
  LogId id;        // a new one
  LogClaim claim;  // its owner's key and name, and the lease
  // The log may be stopped once its owner has made no call for so long
  // (StopAbandonedDirtyLog). Positive.
  absl::Duration ttl = absl::InfiniteDuration();
  DirtyLogConfig config;
  MonotonicTime now;
};

// A log as it is.
struct DirtyLogView {
  DirtyLogState state;
  DirtyLogConfig config;  // as it was started; slots: those that it began with
  absl::Duration ttl;
  // state.last_owner_call + ttl.
  MonotonicTime ttl_end;
};

// What a log says of one slot, and how the slot logs.
struct SlotLogView {
  SlotLogState state;
  SlotLogConfig config;
};

// What is to become of pages that nobody has acknowledged, when the log that
// has them ends, or their slot.
enum class Undelivered : uint8_t { kRefuse, kDiscard };

// Whether the huge pages of the slots come back when their log ends (DL-06).
enum class RecoverOnStop : uint8_t { kNo, kYes };

// Who stops a log, and how.
struct DirtyLogStop {
  // The owner's call. Without one the log is stopped by force, whoever owns it.
  absl::optional<LogCall> by = absl::nullopt;
  // The log that is meant by force; without it, whatever log there is.
  absl::optional<LogId> log_id = absl::nullopt;
  Undelivered undelivered = Undelivered::kRefuse;
  RecoverOnStop recover = RecoverOnStop::kNo;
};

struct ClearResult {
  uint64_t cleared_page_count = 0;  // sealed, and in flight now (DL-24)
  // In flight in this epoch already: the clear was repeated.
  uint64_t already_in_flight_page_count = 0;
  // Asked for, and neither.
  uint64_t already_clean_page_count = 0;
  uint64_t still_sealed_page_count = 0;  // of the slot, after the call
  uint64_t split_2m_count = 0;           // huge pages split on the way (DL-26)
  uint64_t split_1g_count = 0;
};

struct StopResult {
  UndeliveredCounts discarded;
  uint64_t recovered_2m_count = 0;
  uint64_t recovered_1g_count = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_DIRTY_LOG_CALLS_H_
