// Keeps page faults and memslot changes in order with invalidations of host
// memory (PF-21..27, SLOT-23).
//
// An invalidation announces that pages of the host are about to go away. A
// fault finds its page without a lock, so the page may go away before the fault
// installs it. The protocol:
//
//   invalidator, mmu_lock write      fault
//     Begin, AddRange, zap             s = snapshot()
//     (mmu_lock dropped, page goes)    find the page (may sleep)
//     End                              mmu_lock read: RetryNeeded(s, gfn)?
//                                        yes: drop the lock, start again
//                                        no:  install
//
// A fault that found its page before Begin sees the sequence changed or the
// invalidation in progress. A fault that finds its page after End finds the new
// page. So no SPTE for a page that goes away appears after the zap.
//
// An invalidation is announced before Begin and concluded after End, so that
// the set of memslots is the same at Begin and at End:
//
//   Announce ... Begin/AddRange ... End ... Conclude
//
// Without a wait, a fault would start again and again until the invalidation
// ends. WaitWhile makes it wait for the end instead.

#ifndef MMU_CORE_MEMORY_INVALIDATE_SEQUENCE_H_
#define MMU_CORE_MEMORY_INVALIDATE_SEQUENCE_H_

#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/mutex.h"

namespace mmu {

// Thread-safe, with the locks named at each function.
class InvalidationGate {
 public:
  InvalidationGate() = default;
  InvalidationGate(const InvalidationGate&) = delete;
  InvalidationGate& operator=(const InvalidationGate&) = delete;

  // --- Memslot changes (SLOT-23); no lock of the MMU needed or held ---

  // Blocks the publication of new sets of memslots until Conclude.
  void Announce();
  void Conclude();
  // Waits until no invalidation is announced, then runs `publish` while none
  // can be announced. `publish` must not call back. The caller must not hold
  // mmu_lock and must not have announced an invalidation itself.
  void PublishWhenIdle(absl::FunctionRef<void()> publish);

  // --- Faults; Begin, AddRange and End: mmu_lock held for writing ---

  // Starts an invalidation. If no other is in progress, the range of earlier
  // ones is dropped first (PF-26).
  void Begin();
  // Widens the range that all invalidations in progress share, so that it
  // covers `gfns` (PF-26). Called after each Begin before mmu_lock is dropped.
  // `gfns` are whole pages of the host (vm/slots/host_notifier.h): RetryNeeded
  // asks only about the page of the fault, while a huge leaf maps all of its
  // host page.
  void AddRange(GfnRange gfns);
  void End();

  // The sequence number to pass to RetryNeeded. It must be taken before the
  // page is looked up (PF-21). No lock needed.
  uint64_t snapshot() const {
    return sequence_.load(std::memory_order_acquire);
  }
  // Whether a page that was looked up after `snapshot` may be out of date
  // (PF-25). mmu_lock held in any mode, and kept until the SPTE is installed.
  bool RetryNeeded(uint64_t snapshot, Gfn gfn) const {
    // The count is read before the sequence: the reverse of End.
    return MaybeInvalidating(gfn) ||
           sequence_.load(std::memory_order_acquire) != snapshot;
  }
  // Whether some page of `gfns` must not be mapped now. For a caller that looks
  // up nothing before it takes the lock. mmu_lock held in any mode, and kept
  // until the SPTE is installed.
  bool IsInvalidating(GfnRange gfns) const {
    return in_progress_.load(std::memory_order_acquire) > 0 &&
           InProgressRange().Overlaps(gfns);
  }
  // Whether any invalidation is in progress. mmu_lock held in any mode.
  bool AnyInProgress() const {
    return in_progress_.load(std::memory_order_relaxed) > 0;
  }
  // Guesses RetryNeeded without any lock (PF-22). A true answer may be out of
  // date at once. A false one means that an invalidation that had begun before
  // has ended, and that snapshot(), read afterwards, differs from one that was
  // taken before its end.
  bool MaybeInvalidating(Gfn gfn) const {
    return in_progress_.load(std::memory_order_acquire) > 0 &&
           InProgressRange().Contains(gfn);
  }

  // --- Waiting for the end of an invalidation ---

  // Returns when `held_back` returns false or `timeout` is over; may return
  // earlier. Calls `held_back` again when an invalidation ends or a set of
  // memslots is published. `held_back` is called with a lock of the gate held:
  // it may open an RCU read section, but takes no lock. The caller holds no
  // lock, and is neither in guest mode nor in an RCU read section, because the
  // invalidator and a thread that changes memslots may wait for both.
  void WaitWhile(absl::FunctionRef<bool()> held_back, absl::Duration timeout);
  // Makes all waiters call `held_back` again, for the other state that it
  // depends on: they see every change made before this call. Takes a leaf lock.
  void WakeWaiters();

 private:
  GfnRange InProgressRange() const {
    return {Gfn(range_start_.load(std::memory_order_relaxed)),
            Gfn(range_end_.load(std::memory_order_relaxed))};
  }
  // Written under mmu_lock (write). Atomic because MaybeInvalidating and
  // snapshot read them without the lock.
  std::atomic<uint64_t> sequence_ = 0;
  std::atomic<uint64_t> in_progress_ = 0;
  std::atomic<uint64_t> range_start_ = 0;  // both 0: no range yet
  std::atomic<uint64_t> range_end_ = 0;

  // Inner to slots_lock, see mmu_core/LOCKING.md. Held while a set of memslots
  // is published; that waits for slots_arch_lock and nothing else.
  Mutex mu_;
  CondVar idle_;
  uint64_t announced_ ABSL_GUARDED_BY(mu_) = 0;

  // A leaf, also taken under mmu_lock. Guards no member: the state that
  // WaitWhile checks is atomic or under RCU. WaitWhile holds this lock from its
  // check to its wait. A notifier takes it between a change and the
  // notification, so that no notification is missed.
  Mutex changed_mu_;
  CondVar changed_;
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_INVALIDATE_SEQUENCE_H_
