// Letting others have mmu_lock in the middle of a long walk (TDP-20..22).

#ifndef MMU_CORE_TDP_YIELD_POINT_H_
#define MMU_CORE_TDP_YIELD_POINT_H_

#include <cstdint>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/hold_clock.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {

// Whether a long walk may let go of mmu_lock in the middle (TDP-23, TDP-24).
enum class MayYield : uint8_t { kNo, kYes };

// A walk's hold of mmu_lock and of an RCU section, and its decision when to let
// go of both: when somebody waits for the lock, or when it was held for
// kMaxHoldNanos, but never twice without a last-level step in between.
// `Lock` is MmuReadLocked or MmuWriteLocked.
// Externally synchronised: belongs to the walking thread.
template <typename Lock>
class YieldPoint {
 public:
  // A quarter of what callers are promised (200 us): the step during which it
  // is noticed still fits, on a slower machine too.
  static constexpr int64_t kMaxHoldNanos = 50'000;
  // The clock is looked at once in so many steps: a step that changes one entry
  // is cheaper than the clock, one that fills a table is not.
  static constexpr int kStepsPerLook = 64;
  static constexpr int kLongSteps = 1;

  explicit YieldPoint(Lock& lock, int steps_per_look = kStepsPerLook)
      : lock_(lock),
        steps_per_look_(steps_per_look),
        rcu_(std::in_place),
        held_since_(HoldNanos()) {}

  // Whether it is time to let go of the lock, for a walk that has something to
  // do without it anyway (WithoutLock). Counts as a step.
  bool IsDue() {
    if (lock_.NeedYield()) return true;
    return ++steps_ % steps_per_look_ == 0 &&
           HoldNanos() - held_since_ >= kMaxHoldNanos;
  }

  // To be called once per step. True: the lock was let go and taken again; the
  // cursor's entry must not be touched, the loop must go on. Flushes `batch`
  // (may be null) before letting go, so that nobody runs on translations that
  // this walk took away while it is off the lock (TDP-21). `Cursor` is a
  // TdpCursor, or another that has MayYield and MarkYielded.
  template <typename Cursor>
  bool MaybeYield(Cursor& cursor, TlbFlushBatch* batch, MmuCost* cost) {
    if (!IsDue()) return false;
    if (!cursor.MayYield()) return false;
    if (batch != nullptr && batch->pending()) batch->Flush(cost);
    Leave();
    lock_.Yield();
    Enter();
    cursor.MarkYielded();
    return true;
  }

  // Lets go of the lock around `fn`, which may block or allocate. Not analysed:
  // the witness was locked by whoever made it, and is locked again at the end.
  template <typename Cursor, typename Fn>
  void WithoutLock(Cursor& cursor, Fn fn) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    Leave();
    lock_.Unlock();
    fn();
    lock_.Relock();
    Enter();
    cursor.MarkYielded();
  }

 private:
  void Leave() { rcu_.reset(); }
  void Enter() {
    rcu_.emplace();
    held_since_ = HoldNanos();
  }

  Lock& lock_;
  const int steps_per_look_;
  std::optional<RcuReadGuard> rcu_;
  int64_t held_since_;
  int steps_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_TDP_YIELD_POINT_H_
