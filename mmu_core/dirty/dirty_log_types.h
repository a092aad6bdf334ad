// The values that the dirty log's callers exchange with it.

#ifndef MMU_CORE_DIRTY_DIRTY_LOG_TYPES_H_
#define MMU_CORE_DIRTY_DIRTY_LOG_TYPES_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
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
  // Whether slots that are made while the log lasts, and can be written, join
  // it.
  enum class NewMemslots : uint8_t { kLeave, kLog };
  NewMemslots new_memslots = NewMemslots::kLog;
  // How long switching on may hold mmu_lock in one go; a wish for this call,
  // not a setting of the log. Positive.
  absl::Duration max_lock_hold = kDefaultMaxLockHold;

  // What of it concerns each slot. Whoever keeps something for each slot keeps
  // this: `slots` has as many members as there are slots.
  operator SlotLogConfig() const { return {initially_set, split}; }
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_DIRTY_LOG_TYPES_H_
