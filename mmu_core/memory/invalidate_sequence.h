// Keeps page faults and memslot changes in order with invalidations of host
// memory (PF-21..27, SLOT-23).
//
// An invalidation says that pages of the host are about to go away. A fault
// finds its page without a lock, so the page may go away before the fault
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
// invalidation in progress; one that finds it after End finds the new page. So
// no SPTE for a page that goes away appears after the zap.
//
// Around all of that an invalidation is announced, so that the set of memslots
// is the same at Begin and at End:
//
//   Announce ... Begin/AddRange ... End ... Conclude
//
// A fault that has to start again would find the same for as long as the
// invalidation goes on; WaitWhile is where it waits for that.

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

  // From here to Conclude no new set of memslots is published.
  void Announce();
  void Conclude();
  // Waits until no invalidation is announced, then runs `publish` while none
  // can be. `publish` must not call back. The caller must not hold mmu_lock
  // and must not have announced an invalidation itself.
  void PublishWhenIdle(absl::FunctionRef<void()> publish);

  // --- Faults; Begin, AddRange and End: mmu_lock held for writing ---

  // Starts an invalidation. The first of several concurrent ones forgets the
  // range of those before (PF-26).
  void Begin();
  // Widens the range that all invalidations in progress share to cover `gfns`
  // (PF-26). Each Begin is followed by this before mmu_lock is dropped. What is
  // added is whole pages of the host (vm/slots/host_notifier.h): RetryNeeded
  // asks about the page of the fault, and a huge leaf maps all of its host
  // page.
  void AddRange(GfnRange gfns);
  void End();

  // The sequence number to give to RetryNeeded; to be taken before the page is
  // looked up (PF-21). No lock needed.
  uint64_t snapshot() const {
    return sequence_.load(std::memory_order_acquire);
  }
  // Whether what was found since `snapshot` may be out of date (PF-25).
  // mmu_lock held in any mode, and kept until the SPTE is installed.
  bool RetryNeeded(uint64_t snapshot, Gfn gfn) const {
    // The count before the sequence: the reverse of End.
    return MaybeInvalidating(gfn) ||
           sequence_.load(std::memory_order_acquire) != snapshot;
  }
  // Whether some page of `gfns` must not be mapped now. mmu_lock held in any
  // mode, and kept until the SPTE is installed, for which nothing was looked up
  // before the lock was taken.
  bool IsInvalidating(GfnRange gfns) const {
    return in_progress_.load(std::memory_order_acquire) > 0 &&
           InProgressRange().Overlaps(gfns);
  }
  // mmu_lock held in any mode: whether an invalidation is going on, wherever.
  bool AnyInProgress() const {
    return in_progress_.load(std::memory_order_relaxed) > 0;
  }
  // A guess at RetryNeeded without any lock: saves useless work and decides
  // nothing (PF-22). May be wrong either way.
  bool MaybeInvalidating(Gfn gfn) const {
    return in_progress_.load(std::memory_order_acquire) > 0 &&
           InProgressRange().Contains(gfn);
  }

  // --- Whoever can do nothing until an invalidation ends ---

  // Returns when `held_back` says no, or `timeout` is over; may return earlier.
  // Looks again when an invalidation ends or a set of memslots is published.
  // `held_back` is called with a lock of the gate held: it may open an RCU read
  // section, but takes no lock. The caller holds no lock, and is neither in
  // guest mode nor in an RCU read section: the invalidator and whoever changes
  // memslots may wait for both.
  void WaitWhile(absl::FunctionRef<bool()> held_back, absl::Duration timeout);
  // Has all of them look again, for what else `held_back` depends on: a change
  // of that which was made before this call is seen. Takes a leaf lock.
  void WakeWaiters();

 private:
  GfnRange InProgressRange() const {
    return {Gfn(range_start_.load(std::memory_order_relaxed)),
            Gfn(range_end_.load(std::memory_order_relaxed))};
  }
  // Written under mmu_lock (write). Atomic because MaybeInvalidating and
  // snapshot read without it.
  std::atomic<uint64_t> sequence_ = 0;
  std::atomic<uint64_t> in_progress_ = 0;
  std::atomic<uint64_t> range_start_ = 0;  // both 0: no range yet
  std::atomic<uint64_t> range_end_ = 0;

  // Inner to slots_lock, see mmu_core/LOCKING.md. Held while a set of memslots
  // is published, which waits for slots_arch_lock and no longer.
  Mutex mu_;
  CondVar idle_;
  uint64_t announced_ ABSL_GUARDED_BY(mu_) = 0;

  // A leaf, taken under mmu_lock too. Guards no member: what WaitWhile looks at
  // is atomic or under RCU. It is held from that look to the wait, and taken
  // between a change and its notification, so none is missed.
  Mutex changed_mu_;
  CondVar changed_;
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_INVALIDATE_SEQUENCE_H_
