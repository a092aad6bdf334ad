// The limit on one hold of mmu_lock, and the only code that decides when a hold
// is over: for enabling a log, splitting, clearing, recovering and zapping, in
// the TDP MMU and in the shadow MMU alike.
//
// A hold has two limits, and the first one reached ends it:
//
//   entries  SPTEs that were looked at or changed. The same on all machines,
//            whatever their load, so tests count entries.
//   nanos    time, for machines on which an entry takes long.
//
// The lock counts the entries (MmuReadLocked::CountWork), so the limit applies
// to the hold, however many walks share it. The step during which the limit is
// reached is still completed: at most the installation or removal of one table,
// on stage 2 of the tables of one chunk or block, or one rmap.

#ifndef MMU_CORE_SYNC_HOLD_LIMIT_H_
#define MMU_CORE_SYNC_HOLD_LIMIT_H_

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"
#include "mmu_core/base/level.h"
#include "mmu_core/sync/hold_clock.h"

namespace mmu {

// The maximum hold promised to callers that do not set their own.
inline constexpr absl::Duration kDefaultMaxLockHold = absl::Microseconds(200);

// A value.
struct HoldLimit {
  // 16 tables: about 50 us at 5 ns per entry.
  static constexpr int64_t kMaxEntries = 16 * kEntriesPerTable;
  // One table, the smallest useful step.
  static constexpr int64_t kMinEntries = kEntriesPerTable;

  int64_t entries = kMaxEntries;
  // A quarter of the promised maximum: the step during which the limit is
  // noticed still fits, even on a slower machine.
  int64_t nanos = absl::ToInt64Nanoseconds(kDefaultMaxLockHold) / 4;

  // The limit for a caller whose holds must not exceed `max_lock_hold`, which
  // is positive. More time than the default allows more nanoseconds, for slower
  // machines, but no more entries.
  static HoldLimit For(absl::Duration max_lock_hold) {
    const double share = absl::FDivDuration(max_lock_hold, kDefaultMaxLockHold);
    HoldLimit limit;
    limit.entries =
        std::clamp(static_cast<int64_t>(static_cast<double>(kMaxEntries) *
                                        std::min(share, 1.0)),
                   kMinEntries, kMaxEntries);
    limit.nanos = absl::ToInt64Nanoseconds(max_lock_hold) / 4;
    return limit;
  }
};

// Applies the limit to one walk or loop under `Lock`, which is MmuReadLocked or
// MmuWriteLocked. Externally synchronised: belongs to the thread of the lock.
template <typename Lock>
class HoldWatch {
 public:
  // The clock is read once per this many entries: changing an entry costs less
  // than reading the clock, filling a table costs more.
  static constexpr int64_t kEntriesPerLook = 64;

  HoldWatch(const Lock& lock, const HoldLimit& limit)
      : lock_(lock), limit_(limit) {}

  // Whether the hold has reached its limit.
  bool IsOver() {
    const int64_t work = lock_.work();
    if (work >= limit_.entries) return true;
    // Less work than at the last look: the lock was released in between.
    if (work < looked_at_) looked_at_ = 0;
    if (work - looked_at_ < kEntriesPerLook) return false;
    looked_at_ = work;
    return HoldNanos() - lock_.held_since() >= limit_.nanos;
  }
  // Whether to release the lock: the hold is over, or another thread waits.
  bool IsDue() { return lock_.NeedYield() || IsOver(); }

 private:
  const Lock& lock_;
  const HoldLimit limit_;
  int64_t looked_at_ = 0;  // the hold's work at the last clock read
};

}  // namespace mmu

#endif  // MMU_CORE_SYNC_HOLD_LIMIT_H_
