// The implementation of mmu_lock, in a header so that a page fault takes and
// releases the lock without a function call. Only mmu_lock.h includes it; that
// file explains the lock, its states, and how to take it.

#ifndef MMU_CORE_SYNC_MMU_LOCK_INTERNAL_H_
#define MMU_CORE_SYNC_MMU_LOCK_INTERNAL_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "absl/base/optimization.h"
#include "absl/base/thread_annotations.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/thread_index.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/lock_metrics.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/asymmetric_barrier.h"
#include "mmu_core/sync/lock_metrics_recorder.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

// Taken only through MmuReadLocked and MmuWriteLocked. Not recursive in any
// mode: a reader that takes it again deadlocks behind a queued writer. A read
// holder never upgrades (LCK-02). Debug builds check both. Thread-safe.
class ABSL_LOCKABLE MmuLock {
 public:
  MmuLock() = default;
  ~MmuLock();
  MmuLock(const MmuLock&) = delete;
  MmuLock& operator=(const MmuLock&) = delete;

  // True while another thread waits. One relaxed load; a hint, at once out of
  // date.
  bool IsContended() const {
    return (state_.load(std::memory_order_relaxed) &
            (kQueued | kAwaitsFaults)) != 0;
  }

  LockMetrics Snapshot() const;

 private:
  friend class MmuLockHold;
  struct Waiter;

  // The mark of a fault that holds the lock in read mode: one slot per thread
  // number.
  struct alignas(kCacheLineBytes) FaultSlot {
    // Written only by the thread that owns the slot.
    std::atomic<uint32_t> active{0};
    std::atomic<uint64_t> acquisitions{0};
  };
  static constexpr uint32_t kFaultSlots = 63;

  // state_: bits 0-30 number of readers without a fault slot, bit 31 a writer
  // holds the lock, bit 32 a thread is queued, bit 33 the writer that holds the
  // lock still waits for faults.
  static constexpr uint64_t kReader = 1;
  static constexpr uint64_t kReaderMask = (uint64_t{1} << 31) - 1;
  static constexpr uint64_t kWriter = uint64_t{1} << 31;
  static constexpr uint64_t kQueued = uint64_t{1} << 32;
  static constexpr uint64_t kAwaitsFaults = uint64_t{1} << 33;

  // Read mode for a fault. If no writer holds the lock and no thread waits,
  // returns the slot to pass to UnlockFault. Otherwise, or for a thread without
  // a slot, returns null: use LockRead.
  //
  // Why a writer and a fault with a slot never hold the lock together. The
  // danger is that each misses the other's store, because both stores are still
  // in store buffers:
  //
  //   reader                          writer
  //   R1 slots_used_ covers the slot  W1 state_ |= kWriter
  //   R2 active = 1                   W2 load slots_used_: 0? done
  //   R3 LightBarrier                 W3 HeavyBarrier
  //   R4 load state_                  W4 load slots_used_, each active
  //
  // W3 executes a full barrier at some point between the reader's instructions.
  // If that point is before R4, R4 sees W1, and the reader backs off. Otherwise
  // the point is after R1 and R2, and W4 sees both: the writer waits until
  // active is 0, which is stored with release and loaded with acquire.
  //
  // In a VM whose faults take the lock in write mode (those of shadow pages) no
  // slot is ever used, and its writers end at W2 without the cost of W3. For
  // that R1, R4, W1 and W2 are sequentially consistent: all threads agree on
  // one order of them, which respects each thread's own order. If W2 finds 0,
  // W2 comes before the store that raised slots_used_, whichever thread made
  // it. R1, which made or saw that store, comes later, and R4 after R1. The
  // order is therefore W1, W2, R1, R4, and R4 sees W1. This costs the reader
  // nothing: on x86 such a load is an ordinary load.
  FaultSlot* TryLockFault() {
    RcuRegisterThread();  // as in AcquireShared
    const uint32_t index = ThreadIndex();
    if (ABSL_PREDICT_FALSE(index >= kFaultSlots)) return nullptr;
    FaultSlot& slot = fault_slots_[index];
    if (ABSL_PREDICT_FALSE(index >=
                           slots_used_.load(std::memory_order_seq_cst))) {
      RaiseSlotsUsed(index + 1);
    }
    slot.active.store(1, kBarrierOrder);
    LightBarrier();
    AtHook(HookPoint::kFaultToLook);
    if (ABSL_PREDICT_TRUE((state_.load(std::memory_order_seq_cst) &
                           (kWriter | kQueued)) == 0)) {
      return &slot;
    }
    slot.active.store(0, std::memory_order_release);
    return nullptr;
  }
  static void UnlockFault(FaultSlot& slot) {
    slot.active.store(0, std::memory_order_release);
  }
  void RaiseSlotsUsed(uint32_t count);
  // W2 to W4. Returns the nanoseconds waited, or -1 if there was no fault to
  // wait for. Faults are short and wake no waiter, so this polls.
  int64_t AwaitFaults();

  // Both return the nanoseconds waited, or -1 if the lock was free.
  int64_t LockRead() {
    const uint64_t old = state_.fetch_add(kReader, std::memory_order_acquire);
    return (old & (kWriter | kQueued)) == 0 ? -1 : LockReadSlow();
  }
  int64_t LockWrite() {
    uint64_t expected = 0;
    if (state_.compare_exchange_strong(expected, kWriter,
                                       std::memory_order_seq_cst,
                                       std::memory_order_relaxed)) {
      return AwaitFaults();
    }
    const int64_t queued = Queue(LockMode::kWrite);
    return queued + std::max<int64_t>(0, AwaitFaults());
  }
  void UnlockRead() {
    const uint64_t old = state_.fetch_sub(kReader, std::memory_order_release);
    if ((old & kQueued) != 0 && (old & kReaderMask) == kReader) Grant();
  }
  void UnlockWrite() {
    const uint64_t old = state_.fetch_sub(kWriter, std::memory_order_release);
    if ((old & kQueued) != 0) Grant();
  }

  int64_t LockReadSlow();
  int64_t Queue(LockMode mode);
  // Hands the lock to as many waiters at the head of the queue as can hold it
  // together.
  void Grant();
  Waiter* TakeGrantable() ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_mu_);

  alignas(kCacheLineBytes) std::atomic<uint64_t> state_{0};
  // Slots with this number or a higher one were never used. Only grows.
  std::atomic<uint32_t> slots_used_{0};
  std::array<FaultSlot, kFaultSlots> fault_slots_;
  alignas(kCacheLineBytes) Mutex queue_mu_;  // leaf
  Waiter* head_ ABSL_GUARDED_BY(queue_mu_) = nullptr;
  Waiter* tail_ ABSL_GUARDED_BY(queue_mu_) = nullptr;
  LockMetricsRecorder metrics_;
};

// The common part of the two witnesses: one hold of the lock and its
// measurement. Not used directly.
// Externally synchronised: belongs to the thread that made it.
class MmuLockHold {
 public:
  MmuLockHold(MmuLock& lock, LockMode mode, LockOp op, MmuCost* cost)
      : lock_(lock), mode_(mode), op_(op), cost_(cost) {}
  ~MmuLockHold() {
    if (held_) Release();
  }
  MmuLockHold(const MmuLockHold&) = delete;
  MmuLockHold& operator=(const MmuLockHold&) = delete;

  void Acquire() {
    // Only faults have slots: they are frequent, and so short that a writer can
    // poll for their end.
    if (mode_ == LockMode::kRead && op_ == LockOp::kFault) {
      slot_ = lock_.TryLockFault();
      if (ABSL_PREDICT_TRUE(slot_ != nullptr)) return AcquiredSlot();
    }
    AcquireShared();
  }
  void Release() {
    if (ABSL_PREDICT_TRUE(slot_ != nullptr && held_since_ == 0)) {
      MMU_DCHECK(held_);
      held_ = false;
      NoteReleased();
      MmuLock::UnlockFault(*slot_);
      slot_ = nullptr;
      return;
    }
    ReleaseMeasured();
  }
  void Yield();
  bool IsContended() const { return lock_.IsContended(); }
  void CountWork(int64_t entries) const { work_ += entries; }
  int64_t work() const { return work_; }
  int64_t held_since() const { return limited_since_; }
  bool held() const { return held_; }
  const MmuLock& lock() const { return lock_; }
  // As ThisThreadHoldsMmuLock.
#ifdef NDEBUG
  static bool ThisThreadHoldsOne() { return false; }
#else
  static bool ThisThreadHoldsOne();
#endif

 private:
  void AcquiredSlot() {
    MMU_DCHECK(!held_);
    held_ = true;
    NoteAcquired();
    const uint64_t n = slot_->acquisitions.load(std::memory_order_relaxed) + 1;
    slot_->acquisitions.store(n, std::memory_order_relaxed);
    if (ABSL_PREDICT_TRUE(n % kFaultHoldSampling != 0 && cost_ == nullptr)) {
      return;
    }
    StartMeasuring(n % kFaultHoldSampling == 0 ? kFaultHoldSampling : 0);
  }
  void AcquireShared();
  void StartMeasuring(uint64_t hold_weight);
  void ReleaseMeasured();
#ifdef NDEBUG
  void NoteAcquired() {}
  void NoteReleased() {}
#else
  // Detect recursion and upgrades (LCK-02).
  void NoteAcquired();
  void NoteReleased();
#endif

  MmuLock& lock_;
  const LockMode mode_;
  const LockOp op_;
  bool held_ = false;
  MmuCost* const cost_;        // nullable
  uint64_t hold_weight_ = 0;   // acquisitions that this hold stands for
  int64_t held_since_ = 0;     // ns; 0: hold time not measured
  int64_t limited_since_ = 0;  // HoldNanos() at that time
  mutable int64_t work_ = 0;   // of this hold, if it is measured
  MmuLock::FaultSlot* slot_ = nullptr;  // of a fault's hold, if it has one
};

}  // namespace mmu

#endif  // MMU_CORE_SYNC_MMU_LOCK_INTERNAL_H_
