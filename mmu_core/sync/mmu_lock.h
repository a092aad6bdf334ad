// mmu_lock: the reader-writer lock of one VM's page tables, and the witnesses
// that prove in which mode it is held. It is taken by making a witness:
//
//   MmuReadLocked lock(vm.mmu_lock, LockOp::kFault);    // until end of scope
//   MmuWriteLocked lock(vm.mmu_lock, LockOp::kZap, cost);
//
// MmuLock itself has two public calls: IsContended (whether another thread
// waits) and Snapshot (its metrics). The class and its implementation are in
// mmu_lock_internal.h, which only this file includes.
//
// It differs from std::shared_mutex in three ways (LCK-04):
// - Its holder can check, for the cost of a load, whether another thread waits
//   (NeedYield), and so let others in at a convenient point.
// - It is fair: waiters are served in the order in which they queued; adjacent
//   readers in the queue are served together. A reader that arrives while any
//   thread is queued queues too, so neither side starves.
// - It measures wait and hold times per operation.
//
// An uncontended page fault takes it in read mode without an atomic
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

  // True if another thread waits for the lock (TDP-20).
  bool NeedYield() const { return hold_.IsContended(); }
  // Counts work done under the lock, in SPTEs that were looked at or changed.
  // Every operation that does more than a fault must call it; sync/hold_limit.h
  // uses the count to decide when the hold has lasted long enough.
  void CountWork(int64_t entries) const { hold_.CountWork(entries); }
  // The work of this hold, since the lock was last taken, and the time at which
  // it was taken (HoldNanos). Not for LockOp::kFault, whose holds are short.
  int64_t work() const { return hold_.work(); }
  int64_t held_since() const { return hold_.held_since(); }
  // Drops the lock, lets waiting threads go first, and takes the lock again in
  // read mode. Everything read from the tables before is then out of date.
  void Yield() { hold_.Yield(); }
  // Drops the lock around code that may block, until Relock takes it again.
  void Unlock() ABSL_UNLOCK_FUNCTION() { hold_.Release(); }
  void Relock() ABSL_SHARED_LOCK_FUNCTION() { hold_.Acquire(); }

  bool held() const { return hold_.held(); }
  const MmuLock& lock() const { return hold_.lock(); }

 private:
  MmuLockHold hold_;
};

// Proof that the calling thread holds mmu_lock in write mode; otherwise like
// MmuReadLocked.
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

// Whether the calling thread holds the mmu_lock of any VM. Always false with
// NDEBUG, where holds are not tracked.
inline bool ThisThreadHoldsMmuLock() {
  return MmuLockHold::ThisThreadHoldsOne();
}

// The states of the lock. Three kinds of threads take it: writers
// (MmuWriteLocked), faults (MmuReadLocked with LockOp::kFault), and readers,
// which are all others in read mode. A fault on a thread without a fault slot
// (MmuLock::kFaultSlots) counts as a reader.
//
//            held by                a fault      a reader     a writer
//                                   arrives      arrives      arrives
//   Free     no thread              -> Read      -> Read      -> Drain
//   Read     faults and readers     shares it    shares it    -> Drain if there
//                                                             is no reader,
//                                                             else -> ReadQ
//   ReadQ    faults and readers     queues       queues       queues
//   Drain    a writer, once the     queues       queues       queues
//            faults have left
//   Write    a writer               queues       queues       queues
//   Grant    no thread, or faults   queues       queues       queues
//
//   from     to             when
//   Read     Free           the last holder leaves
//   ReadQ    Grant          the last reader leaves
//   Drain    Write          the last fault leaves; at once if there is none
//   Write    Free           the writer leaves, and no thread is queued
//   Write    Grant          the writer leaves, and a thread is queued
//   Grant    Read or ReadQ  a reader heads the queue: the readers up to the
//                           next writer in the queue get the lock; ReadQ if a
//                           thread is queued behind them
//   Grant    Drain          a writer heads the queue
//
// Threads may be queued in Drain and in Write as well. A queued thread waits
// until the lock is granted to it, in queue order, either by a thread that
// leaves the lock or by one that queues meanwhile. Grant lasts only while that
// thread grants the lock. The writer in Drain polls for the end of the faults:
// faults are short and wake no waiter. NeedYield is true while any thread is
// queued, and while the writer in Drain waits for a fault.

}  // namespace mmu

#endif  // MMU_CORE_SYNC_MMU_LOCK_H_
