#include "mmu_core/sync/mmu_lock.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "absl/time/time.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/sync/hold_clock.h"
#include "mmu_core/sync/spin.h"

namespace mmu {
namespace {

// How long a waiter spins before it sleeps. Short: with more threads than
// processors, the lock's holder may be waiting for this processor.
constexpr int64_t kSpinNanos = 2000;

// How many times a writer polls for the end of a fault before it sleeps between
// polls: some microseconds, several times the duration of a fault.
constexpr int kFaultPolls = 200;
constexpr std::chrono::microseconds kFaultPollPause(20);

#ifndef NDEBUG
// The lock that this thread holds; detects recursion and upgrades (LCK-02).
constinit thread_local const MmuLock* held_lock = nullptr;
#endif

}  // namespace

// A queued thread; lives on its stack. The granting thread must not touch it
// after `grant` has become kGranted.
struct MmuLock::Waiter {
  enum Grant : uint32_t { kSpinning, kSleeping, kGranted };

  explicit Waiter(LockMode m) : mode(m) {}

  // Waits until granted.
  void Await() {
    const int64_t spin_end = MonotonicNanos() + kSpinNanos;
    do {
      for (int i = 0; i < 16; ++i) {
        if (grant.load(std::memory_order_acquire) == kGranted) return;
        CpuRelax();
      }
    } while (MonotonicNanos() < spin_end);
    uint32_t expected = kSpinning;
    if (!grant.compare_exchange_strong(expected, kSleeping,
                                       std::memory_order_acquire)) {
      return;
    }
    while (grant.load(std::memory_order_acquire) != kGranted) {
      syscall(SYS_futex, &grant, FUTEX_WAIT_PRIVATE, kSleeping, nullptr,
              nullptr, 0);
    }
  }

  // After the exchange the waiter may be gone. Waking its address is then
  // harmless: all users of futexes expect spurious wake-ups.
  void Wake() {
    const void* address = &grant;
    if (grant.exchange(kGranted, std::memory_order_acq_rel) == kSleeping) {
      syscall(SYS_futex, address, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
    }
  }

  const LockMode mode;
  Waiter* next = nullptr;  // guarded by queue_mu_ while queued
  std::atomic<uint32_t> grant{kSpinning};
};
static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));

MmuLock::~MmuLock() { MMU_DCHECK(state_.load(std::memory_order_relaxed) == 0); }

void MmuLock::RaiseSlotsUsed(uint32_t count) {
  uint32_t used = slots_used_.load(std::memory_order_seq_cst);
  while (used < count && !slots_used_.compare_exchange_weak(
                             used, count, std::memory_order_seq_cst)) {
  }
}

int64_t MmuLock::AwaitFaults() {
  AtHook(HookPoint::kWriterToLook);
  if (slots_used_.load(std::memory_order_seq_cst) == 0) return -1;
  HeavyBarrier();
  const uint32_t used = slots_used_.load(kBarrierAcquire);
  int64_t begin = 0;
  for (uint32_t i = 0; i < used; ++i) {
    const FaultSlot& slot = fault_slots_[i];
    if (slot.active.load(kBarrierAcquire) == 0) continue;
    if (begin == 0) {
      begin = MonotonicNanos();
      state_.fetch_or(kAwaitsFaults, std::memory_order_relaxed);
    }
    for (int polls = 0; slot.active.load(std::memory_order_acquire) != 0;
         ++polls) {
      if (polls < kFaultPolls) {
        CpuRelax();
      } else {
        // The faulting thread was preempted, perhaps by this thread.
        std::this_thread::sleep_for(kFaultPollPause);
      }
    }
  }
  if (begin == 0) return -1;
  state_.fetch_and(~kAwaitsFaults, std::memory_order_relaxed);
  return MonotonicNanos() - begin;
}

int64_t MmuLock::LockReadSlow() {
  // LockRead has counted this thread as a reader. Undoing that may allow a
  // writer to take the lock; no extra step is needed, since Queue ends with a
  // Grant.
  state_.fetch_sub(kReader, std::memory_order_relaxed);
  return Queue(LockMode::kRead);
}

int64_t MmuLock::Queue(LockMode mode) {
  const int64_t start = MonotonicNanos();
  Waiter waiter(mode);
  AtHook(HookPoint::kFoundHeldToQueue);
  {
    MutexLock lock(queue_mu_);
    (head_ == nullptr ? head_ : tail_->next) = &waiter;
    tail_ = &waiter;
    state_.fetch_or(kQueued, std::memory_order_relaxed);
  }
  // Grant here in case the holder left before it could see kQueued, since no
  // other thread would then grant the lock (RACE-50):
  //   1. this thread finds the lock held;
  //   2. the holder unlocks, sees no kQueued and grants nothing;
  //   3. this thread sets kQueued and would sleep for ever.
  // If the holder leaves after 3, it sees kQueued and both threads call Grant;
  // the mutex in Grant orders them.
  Grant();
  AtHook(HookPoint::kQueuedToAwait);
  waiter.Await();
  return std::max<int64_t>(0, MonotonicNanos() - start);
}

void MmuLock::Grant() {
  Waiter* granted;
  {
    MutexLock lock(queue_mu_);
    granted = TakeGrantable();
  }
  // A wake-up takes a system call, so it is done without the mutex.
  while (granted != nullptr) {
    Waiter* const next = granted->next;
    granted->Wake();
    granted = next;
  }
}

// While kQueued is set, a thread can only acquire the lock here, under
// queue_mu_. Other threads can at most release it, or count as a reader for a
// moment before they queue (LockReadSlow). The latter can make a writer's turn
// fail; then the Grant of the reader's own Queue repeats the attempt.
MmuLock::Waiter* MmuLock::TakeGrantable() {
  Waiter* const first = head_;
  Waiter* last = nullptr;
  while (head_ != nullptr) {
    Waiter* const waiter = head_;
    if (waiter->mode == LockMode::kWrite) {
      uint64_t expected = kQueued;
      if (last != nullptr ||
          !state_.compare_exchange_strong(expected, kQueued | kWriter,
                                          std::memory_order_seq_cst,
                                          std::memory_order_relaxed)) {
        break;
      }
    } else {
      // While kQueued is set, only a grant sets kWriter. So the result of this
      // test stays valid until the addition.
      if ((state_.load(std::memory_order_relaxed) & kWriter) != 0) break;
      state_.fetch_add(kReader, std::memory_order_acquire);
    }
    head_ = waiter->next;
    last = waiter;
    if (waiter->mode == LockMode::kWrite) break;
  }
  if (last == nullptr) return nullptr;
  last->next = nullptr;
  if (head_ == nullptr) {
    tail_ = nullptr;
    state_.fetch_and(~kQueued, std::memory_order_relaxed);
  }
  return first;
}

LockMetrics MmuLock::Snapshot() const {
  LockMetrics metrics = metrics_.Snapshot();
  uint64_t& faults = metrics.at(LockMode::kRead, LockOp::kFault).acquisitions;
  for (const FaultSlot& slot : fault_slots_) {
    faults += slot.acquisitions.load(std::memory_order_relaxed);
  }
  return metrics;
}

#ifndef NDEBUG
bool MmuLockHold::ThisThreadHoldsOne() { return held_lock != nullptr; }

void MmuLockHold::NoteAcquired() {
  MMU_CHECK(held_lock != &lock_);
  if (held_lock == nullptr) held_lock = &lock_;
  AtHook(mode_ == LockMode::kRead ? HookPoint::kReadLocked
                                  : HookPoint::kWriteLocked);
}

void MmuLockHold::NoteReleased() {
  AtHook(HookPoint::kUnlock);
  if (held_lock == &lock_) held_lock = nullptr;
}
#endif

void MmuLockHold::StartMeasuring(uint64_t hold_weight) {
  hold_weight_ = hold_weight;
  work_ = 0;
  held_since_ = MonotonicNanos();
  limited_since_ = HoldNanosAt(held_since_);
}

void MmuLockHold::AcquireShared() {
  MMU_DCHECK(!held_);
#ifndef NDEBUG
  MMU_CHECK(held_lock != &lock_);  // the thread would wait for itself
#endif
  // The metrics need the thread's number, and the holder may open an RCU read
  // section. Both allocate at their first use, so they are set up before the
  // lock is taken (LCK-01).
  ThreadIndex();
  RcuRegisterThread();
  const int64_t waited =
      mode_ == LockMode::kRead ? lock_.LockRead() : lock_.LockWrite();
  held_ = true;
  NoteAcquired();
  LockMetricsRecorder& metrics = lock_.metrics_;
  metrics.CountAcquisition(mode_, op_);
  if (waited >= 0) {
    metrics.RecordWait(mode_, op_, waited);
    if (cost_ != nullptr) cost_->lock_wait += absl::Nanoseconds(waited);
  }
  StartMeasuring(1);
}

void MmuLockHold::ReleaseMeasured() {
  MMU_DCHECK(held_);
  held_ = false;
  NoteReleased();
  const int64_t held_for = MonotonicNanos() - held_since_;
  held_since_ = 0;
  if (slot_ != nullptr) {
    MmuLock::UnlockFault(*slot_);
    slot_ = nullptr;
  } else if (mode_ == LockMode::kRead) {
    lock_.UnlockRead();
  } else {
    lock_.UnlockWrite();
  }
  // Recorded after the unlock, so that no thread waits for the recording.
  if (hold_weight_ != 0) {
    lock_.metrics_.RecordHold(mode_, op_, held_for, hold_weight_);
  }
  if (cost_ != nullptr) {
    cost_->max_lock_hold =
        std::max(cost_->max_lock_hold, absl::Nanoseconds(held_for));
  }
}

// Waiting threads go first: Release hands the lock to them if it can, and if it
// cannot, Acquire queues behind them.
void MmuLockHold::Yield() {
  AtHook(HookPoint::kYield);
  lock_.metrics_.CountYield(mode_, op_);
  Release();
  Acquire();
}

}  // namespace mmu
