// How long mmu_lock may be held in one go, and the only place that decides when
// that is over: for enabling a log, splitting, clearing, recovering and zapping
// alike, in the TDP MMU and in the shadow MMU.
//
// A hold is bounded twice, and the first of the two ends it:
//
//   entries  what was done in it: SPTEs that were looked at or changed. On all
//            machines the same, however busy, so it is what tests count.
//   nanos    the clock, for machines on which an entry takes long.
//
// The entries are counted at the lock (MmuReadLocked::CountWork), so that the
// bound is that of the hold, no matter how many walks share it. When the
// decision falls, the step in which it falls is still done: at most the
// installation or removal of one table, or one rmap.

#ifndef MMU_CORE_SYNC_HOLD_LIMIT_H_
#define MMU_CORE_SYNC_HOLD_LIMIT_H_

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"
#include "mmu_core/base/level.h"
#include "mmu_core/sync/hold_clock.h"

namespace mmu {

// What callers are promised who ask for nothing else.
inline constexpr absl::Duration kDefaultMaxLockHold = absl::Microseconds(200);

// A value.
struct HoldLimit {
  // 16 tables: some 50 us where an entry takes 5 ns.
  static constexpr int64_t kMaxEntries = 16 * kEntriesPerTable;
  // A table: less would be no step.
  static constexpr int64_t kMinEntries = kEntriesPerTable;

  int64_t entries = kMaxEntries;
  // A quarter of what callers are promised: the step during which it is noticed
  // still fits, on a slower machine too.
  int64_t nanos = absl::ToInt64Nanoseconds(kDefaultMaxLockHold) / 4;

  // For a caller that wants no hold to be longer than `max_lock_hold`, which is
  // positive. Asking for more time than the default buys slower machines time,
  // but no more entries.
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

// The decision, for one walk or loop under `Lock`, MmuReadLocked or
// MmuWriteLocked. Externally synchronised: belongs to the thread of the lock.
template <typename Lock>
class HoldWatch {
 public:
  // The clock is looked at once in so many entries: changing one is cheaper
  // than the clock, filling a table is not.
  static constexpr int64_t kEntriesPerLook = 64;

  HoldWatch(const Lock& lock, const HoldLimit& limit)
      : lock_(lock), limit_(limit) {}

  // The hold has lasted as long as it may.
  bool IsOver() {
    const int64_t work = lock_.work();
    if (work >= limit_.entries) return true;
    // Less work than before: another hold.
    if (work < looked_at_) looked_at_ = 0;
    if (work - looked_at_ < kEntriesPerLook) return false;
    looked_at_ = work;
    return HoldNanos() - lock_.held_since() >= limit_.nanos;
  }
  // It is time to let go of the lock: the hold is over, or somebody waits.
  bool IsDue() { return lock_.NeedYield() || IsOver(); }

 private:
  const Lock& lock_;
  const HoldLimit limit_;
  int64_t looked_at_ = 0;  // the hold's work when the clock was looked at
};

}  // namespace mmu

#endif  // MMU_CORE_SYNC_HOLD_LIMIT_H_
