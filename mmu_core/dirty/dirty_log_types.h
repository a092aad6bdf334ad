// The values that the dirty log's callers exchange with it.

#ifndef MMU_CORE_DIRTY_DIRTY_LOG_TYPES_H_
#define MMU_CORE_DIRTY_DIRTY_LOG_TYPES_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "mmu_core/sync/hold_limit.h"

namespace mmu {

// Whether a new log starts with every page dirty (and nothing write-protected),
// or with no page dirty and everything write-protected (DL-02, DL-04).
enum class InitiallySet : uint8_t { kNo, kYes };

// When huge pages of a logged slot are split.
enum class SplitPolicy : uint8_t {
  kNone,     // only when a vCPU writes to one (DL-08)
  kEager,    // all of them while logging is switched on (DL-02)
  kOnClear,  // those in a cleared range (DL-26); needs InitiallySet::kYes
};

// The log settings of one slot.
struct SlotLogConfig {
  InitiallySet initially_set = InitiallySet::kNo;
  SplitPolicy split = SplitPolicy::kNone;

  friend bool operator==(const SlotLogConfig&, const SlotLogConfig&) = default;
};

// The settings of a log to be switched on.
struct DirtyLogConfig {
  // Slots of address space 0. Empty: all writable slots, of which there must be
  // one.
  std::vector<uint32_t> slots;
  InitiallySet initially_set = InitiallySet::kNo;
  SplitPolicy split = SplitPolicy::kNone;
  // Whether writable slots that are made while the log lasts join it.
  enum class NewMemslots : uint8_t { kLeave, kLog };
  NewMemslots new_memslots = NewMemslots::kLog;
  // The longest hold of mmu_lock while logging is switched on. Positive.
  // Applies to this call only; it is not kept with the log.
  absl::Duration max_lock_hold = kDefaultMaxLockHold;

  // The settings that concern each slot. Per-slot state keeps only these, since
  // `slots` has an element per slot.
  operator SlotLogConfig() const { return {initially_set, split}; }
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_DIRTY_LOG_TYPES_H_
