#include "mmu_core/sync/refill.h"

#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/timed_wait.h"

namespace mmu {
namespace {

constinit std::atomic<uint64_t> grace_period_waits{0};  // a relaxed count

// The number of Reclaims of the calling thread.
constinit thread_local int own_reclaims = 0;

// How long a thread that waits for the end of a Reclaim waits before it looks
// into the pool again: the first pieces may return long before that end.
constexpr absl::Duration kLookAgain = absl::Milliseconds(1);

}  // namespace

// The open Reclaims of the process, oldest first. Thread-safe.
class OpenReclaims {
 public:
  void Add(Reclaim& reclaim) {
    MutexLock lock(mu_);
    reclaim.number_ = ++begun_;
    reclaim.older_ = newest_;
    (newest_ == nullptr ? oldest_ : newest_->newer_) = &reclaim;
    newest_ = &reclaim;
  }
  void Remove(Reclaim& reclaim) {
    {
      MutexLock lock(mu_);
      (reclaim.newer_ == nullptr ? newest_ : reclaim.newer_->older_) =
          reclaim.older_;
      (reclaim.older_ == nullptr ? oldest_ : reclaim.older_->newer_) =
          reclaim.newer_;
      ended_.fetch_add(1, std::memory_order_release);
    }
    one_ended_.NotifyAll();
  }

  uint64_t begun() const {
    MutexLock lock(mu_);
    return begun_;
  }
  // Acquire: the caller sees the grace-period counts of the Reclaims that have
  // ended. Takes no lock, because every refill calls it.
  uint64_t ended() const { return ended_.load(std::memory_order_acquire); }
  // Waits up to kLookAgain for the end of the Reclaims up to `number`. Returns
  // true if all have ended.
  bool AwaitOver(uint64_t number) {
    MutexLock lock(mu_);
    const MonotonicTime deadline = MonotonicTime::Now() + kLookAgain;
    while (!OverLocked(number) && WaitUntil(one_ended_, mu_, deadline)) {
    }
    return OverLocked(number);
  }

 private:
  bool OverLocked(uint64_t number) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return oldest_ == nullptr || oldest_->number_ > number;
  }

  mutable Mutex mu_;  // leaf
  CondVar one_ended_;
  uint64_t begun_ ABSL_GUARDED_BY(mu_) = 0;
  std::atomic<uint64_t> ended_{0};  // written under mu_
  Reclaim* oldest_ ABSL_GUARDED_BY(mu_) = nullptr;
  Reclaim* newest_ ABSL_GUARDED_BY(mu_) = nullptr;
};

namespace {

// Constructed at the start of the program, since the first use may be under
// mmu_lock. Never destroyed.
OpenReclaims& open_reclaims = *new OpenReclaims;

}  // namespace

Reclaim::Reclaim() {
  ++own_reclaims;
  open_reclaims.Add(*this);
}

Reclaim::~Reclaim() {
  open_reclaims.Remove(*this);
  --own_reclaims;
}

bool Reclaim::ThisThreadHasOne() { return own_reclaims != 0; }

bool MayFillFromPool() {
  return !InRcuReadSection() && !Reclaim::ThisThreadHasOne() &&
         !ThisThreadHoldsMmuLock();
}

// When the refill gives up, every piece that was being returned at its first
// look is in the stock, in the pool, or taken by another thread. The reason,
// for a piece that was counted as in its grace period:
//
//   unlinks                           fills
//   U1 enters an RCU read section
//   U2 counts the piece
//                                     F1 looks: too few, but some are counted
//                                     F2 RcuSynchronize
//   U3 hands the piece to RCU
//   U4 leaves the section
//                                     F3 RcuBarrier
//                                     F4 looks again
//
// F1 has seen U2, so F2 waits for U4. U3 comes before F3, so the piece is in
// the pool before F4. With F3 alone, U3 might come after it.
//
// The reason, for a piece that is not unlinked yet: its Reclaim began before
// the piece became unreachable, and so before F1. If that Reclaim had ended by
// F1, the piece was counted by then. If not, fewer Reclaims had ended before F1
// than have begun by the check after F1, and F2 to F4 are repeated until all of
// those have ended. Reclaims that begin later do not matter: the pieces that
// they tear down were in use at F1.
bool FillFromPool(absl::FunctionRef<Refill()> take) {
  MMU_CHECK(MayFillFromPool());
  AtHook(HookPoint::kTopUp);
  const uint64_t ended = open_reclaims.ended();
  const Refill first = take();
  if (first.enough) return true;
  const uint64_t begun = open_reclaims.begun();
  bool over = ended == begun;
  if (over && first.in_grace_period == 0) return false;
  grace_period_waits.fetch_add(1, std::memory_order_relaxed);
  for (;;) {
    RcuSynchronize();
    RcuBarrier();
    if (take().enough) return true;
    if (over) return false;
    over = open_reclaims.AwaitOver(begun);
  }
}

uint64_t GracePeriodWaits() {
  return grace_period_waits.load(std::memory_order_relaxed);
}

}  // namespace mmu
