// mmu_lock: the reader-writer lock of one VM's page tables, and the witnesses
// that prove in which mode it is held. It is taken by making a witness:
//
//   MmuReadLocked lock(vm.mmu_lock, LockOp::kFault);    // until end of scope
//   MmuWriteLocked lock(vm.mmu_lock, LockOp::kZap, cost);
//
// The class MmuLock itself has two calls for others, IsContended (whether
// somebody waits) and Snapshot (its metrics). It stands with its implementation
// in mmu_lock_internal.h, which only this file includes.
//
// It differs from std::shared_mutex in three ways (LCK-04):
//  - Whoever holds it can ask, for the price of a load, whether somebody waits
//    (NeedYield), and so let others in at a convenient point.
//  - It is fair: waiters are served in the order in which they queued, readers
//    that stand next to each other together. A reader that arrives while
//    anybody is queued queues too, so neither side starves.
//  - It measures who waited for it and who held it, for how long.
// And a page fault that meets nobody takes it in read mode without an atomic
// read-modify-write and without writing to memory that other threads write to:
// faults of different vCPUs do not slow each other down.
// Its states are listed at the end of this file. For its place among the locks
// see mmu_core/LOCKING.md.

#ifndef MMU_CORE_SYNC_MMU_LOCK_H_
#define MMU_CORE_SYNC_MMU_LOCK_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock_internal.h"  // IWYU pragma: export

namespace mmu {

// Proof that the calling thread holds mmu_lock in read mode. Functions that
// need it take a `const MmuReadLocked&`.
// Externally synchronised: belongs to the thread that made it.
class ABSL_SCOPED_LOCKABLE MmuReadLocked {
 public:
  // `cost` (may be null; must outlive this) gets lock_wait and max_lock_hold.
  explicit MmuReadLocked(MmuLock& lock, LockOp op, MmuCost* cost = nullptr)
      ABSL_SHARED_LOCK_FUNCTION(lock)
      : hold_(lock, LockMode::kRead, op, cost) {
    hold_.Acquire();
  }
  ~MmuReadLocked() ABSL_UNLOCK_FUNCTION() = default;

  // True if somebody waits for the lock (TDP-20).
  bool NeedYield() const { return hold_.IsContended(); }
  // What is done under the lock, in SPTEs that are looked at or changed:
  // whoever does more than a fault does says so, and sync/hold_limit.h decides
  // by it when the hold has lasted long enough.
  void CountWork(int64_t entries) const { hold_.CountWork(entries); }
  // That of this hold, since the lock was taken last, and when that was
  // (HoldNanos). Not for LockOp::kFault, whose holds are short.
  int64_t work() const { return hold_.work(); }
  int64_t held_since() const { return hold_.held_since(); }
  // Drops the lock, lets those who wait go first, takes it again in read mode.
  // Everything read from the tables before is out of date afterwards.
  void Yield() { hold_.Yield(); }
  // To drop the lock around something that may block; held again after Relock.
  void Unlock() ABSL_UNLOCK_FUNCTION() { hold_.Release(); }
  void Relock() ABSL_SHARED_LOCK_FUNCTION() { hold_.Acquire(); }

  bool held() const { return hold_.held(); }
  const MmuLock& lock() const { return hold_.lock(); }

 private:
  MmuLockHold hold_;
};

// Proof that the calling thread holds mmu_lock in write mode; else as above.
// Externally synchronised: belongs to the thread that made it.
class ABSL_SCOPED_LOCKABLE MmuWriteLocked {
 public:
  explicit MmuWriteLocked(MmuLock& lock, LockOp op, MmuCost* cost = nullptr)
      ABSL_EXCLUSIVE_LOCK_FUNCTION(lock)
      : hold_(lock, LockMode::kWrite, op, cost) {
    hold_.Acquire();
  }
  ~MmuWriteLocked() ABSL_UNLOCK_FUNCTION() = default;

  bool NeedYield() const { return hold_.IsContended(); }
  void CountWork(int64_t entries) const { hold_.CountWork(entries); }
  int64_t work() const { return hold_.work(); }
  int64_t held_since() const { return hold_.held_since(); }
  void Yield() { hold_.Yield(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() { hold_.Release(); }
  void Relock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { hold_.Acquire(); }

  bool held() const { return hold_.held(); }
  const MmuLock& lock() const { return hold_.lock(); }

 private:
  MmuLockHold hold_;
};

// Whether the calling thread holds the mmu_lock of any VM. Always false in
// programs built with NDEBUG, which do not keep account.
inline bool ThisThreadHoldsMmuLock() {
  return MmuLockHold::ThisThreadHoldsOne();
}

// The states of the lock. Three kinds of threads come to it: writers
// (MmuWriteLocked), faults (MmuReadLocked with LockOp::kFault), and readers,
// which are all others in read mode. A fault of a thread that has no slot for
// it (MmuLock::kFaultSlots) is a reader.
//
//            held by                a fault      a reader     a writer
//                                   that comes   that comes   that comes
//   Free     nobody                 -> Read      -> Read      -> Drain
//   Read     faults and readers     has it too   has it too   -> Drain, if no
//                                                             reader is there;
//                                                             else -> ReadQ
//   ReadQ    faults and readers     queues       queues       queues
//   Drain    a writer, when the     queues       queues       queues
//            faults have left
//   Write    a writer               queues       queues       queues
//   Grant    nobody, or faults      queues       queues       queues
//
//   from     to             when
//   Read     Free           the last of them leaves
//   ReadQ    Grant          the last reader leaves
//   Drain    Write          the last fault leaves; at once if there is none
//   Write    Free           the writer leaves, and nobody is queued
//   Write    Grant          the writer leaves, and somebody is queued
//   Grant    Read or ReadQ  a reader heads the queue: the readers that stand
//                           there before the next writer have the lock; ReadQ
//                           if somebody is queued behind them
//   Grant    Drain          a writer heads the queue
//
// Threads may be queued in Drain and in Write as well. A queued thread waits
// until the lock is granted to it, in the order of the queue: by the thread
// that leaves the lock, or by one that queues meanwhile. Grant lasts no longer
// than that takes. The writer in Drain looks again and again whether the faults
// have left: they are short, and wake nobody. NeedYield is true while anybody
// is queued, and while the writer in Drain waits for a fault.

}  // namespace mmu

#endif  // MMU_CORE_SYNC_MMU_LOCK_H_
