// The values that the dirty log's callers exchange with it.

#ifndef MMU_CORE_DIRTY_DIRTY_LOG_TYPES_H_
#define MMU_CORE_DIRTY_DIRTY_LOG_TYPES_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/sync/hold_limit.h"

namespace mmu {

// Whether a new log starts with every page dirty (and nothing protected), or
// with none dirty and everything protected (DL-02, DL-04).
enum class InitiallySet : uint8_t { kNo, kYes };

// When huge pages of a logged slot are split.
enum class SplitPolicy : uint8_t {
  kNone,     // only when a vCPU writes to one (DL-08)
  kEager,    // all of them while logging is switched on (DL-02)
  kOnClear,  // those that a clear touches (DL-26); needs InitiallySet::kYes
};

// How one slot logs.
struct SlotLogConfig {
  InitiallySet initially_set = InitiallySet::kNo;
  SplitPolicy split = SplitPolicy::kNone;

  friend bool operator==(const SlotLogConfig&, const SlotLogConfig&) = default;
};

// What is asked for when logging goes on.
struct DirtyLogConfig {
  // Of address space 0; empty means all that can be written, at least one.
  std::vector<uint32_t> slots;
  InitiallySet initially_set = InitiallySet::kNo;
  SplitPolicy split = SplitPolicy::kNone;
  // How long switching on may hold mmu_lock in one go; a wish for this call,
  // not a setting of the log. Positive.
  absl::Duration max_lock_hold = kDefaultMaxLockHold;

  // What of it concerns each slot. Whoever keeps something for each slot keeps
  // this: `slots` has as many members as there are slots.
  operator SlotLogConfig() const { return {initially_set, split}; }
};

// A slot's log.
struct DirtyLogInfo {
  uint32_t slot = 0;
  uint64_t open_epoch = 0;          // the epoch that new dirty pages belong to
  uint64_t sealed_epoch = 0;        // 0 if none was sealed yet
  uint64_t unacked_page_count = 0;  // sealed pages not yet cleared
  MonotonicTime sealed_at;          // of the oldest un-acked seal; else
                                    // InfiniteFuture
  SlotLogConfig config;             // as it was started
};

struct SealResult {
  uint64_t epoch = 0;              // the epoch just sealed
  uint64_t dirty_page_count = 0;   // un-acked pages in it, merged ones included
  uint64_t merged_page_count = 0;  // of these, left over from earlier seals
};

struct ClearResult {
  uint64_t cleared_page_count = 0;        // bits that really were set (DL-24)
  uint64_t already_clean_page_count = 0;  // asked for, but not set
  uint64_t split_2m_count = 0;            // huge pages split on the way (DL-26)
  uint64_t split_1g_count = 0;
};

struct StopResult {
  uint64_t recovered_2m_count = 0;
  uint64_t recovered_1g_count = 0;
  // Dirty pages, open and sealed, thrown away on request.
  uint64_t discarded_page_count = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_DIRTY_LOG_TYPES_H_
