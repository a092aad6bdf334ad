// Releasing mmu_lock in the middle of a long walk (TDP-20..22).

#ifndef MMU_CORE_MMU_YIELD_POINT_H_
#define MMU_CORE_MMU_YIELD_POINT_H_

#include <cstdint>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {

// Whether a long walk may release mmu_lock in the middle (TDP-23, TDP-24).
enum class MayYield : uint8_t { kNo, kYes };

// A walk's hold of mmu_lock and of an RCU section. It releases both if another
// thread waits for the lock, or if the hold has reached its limit
// (sync/hold_limit.h), but never twice without a last-level step in between.
// `Lock` is MmuReadLocked or MmuWriteLocked. Externally synchronised: belongs
// to the walking thread.
template <typename Lock>
class YieldPoint {
 public:
  explicit YieldPoint(Lock& lock, const HoldLimit& limit = {})
      : lock_(lock), watch_(lock, limit), rcu_(std::in_place) {}

  // Whether it is time to release the lock, for a walk that has work to do
  // without the lock anyway (WithoutLock). Counts as a visit of one entry; the
  // caller counts further work at the lock.
  bool IsDue() {
    lock_.CountWork(1);
    return watch_.IsDue();
  }

  // To be called once per step. True: the lock was released and taken again;
  // the cursor's entry must not be used, and the loop must continue. Before the
  // release it flushes `batch` (may be null), so that no vCPU uses translations
  // that this walk removed while the walk does not hold the lock (TDP-21).
  // `Cursor` is a TdpCursor, or another type with MayYield and MarkYielded.
  template <typename Cursor>
  bool MaybeYield(Cursor& cursor, TlbFlushBatch* batch, MmuCost* cost) {
    if (!IsDue()) return false;
    if (!cursor.MayYield()) return false;
    if (batch != nullptr && batch->pending()) batch->Flush(cost);
    rcu_.reset();
    lock_.Yield();
    rcu_.emplace();
    cursor.MarkYielded();
    return true;
  }

  // Releases the lock around `fn`, which may block or allocate. Not analysed:
  // the caller locked the witness, which is locked again at the end.
  template <typename Cursor, typename Fn>
  void WithoutLock(Cursor& cursor, Fn fn) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    rcu_.reset();
    lock_.Unlock();
    fn();
    lock_.Relock();
    rcu_.emplace();
    cursor.MarkYielded();
  }

 private:
  Lock& lock_;
  HoldWatch<Lock> watch_;
  std::optional<RcuReadGuard> rcu_;
};

}  // namespace mmu

#endif  // MMU_CORE_MMU_YIELD_POINT_H_
