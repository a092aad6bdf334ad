// The clock by which a holder of mmu_lock decides that it has held the lock
// long enough. It is apart from other clocks so that a test, and not the
// machine on which the test runs, says when a hold ends.

#ifndef MMU_CORE_SYNC_HOLD_CLOCK_H_
#define MMU_CORE_SYNC_HOLD_CLOCK_H_

#include <atomic>
#include <cstdint>

#include "absl/base/optimization.h"
#include "mmu_core/sync/spin.h"

namespace mmu {

#ifdef NDEBUG

// Nanoseconds; only differences have a meaning.
inline int64_t HoldNanos() { return MonotonicNanos(); }
// The same, for who has just looked at the steady clock and read `now`.
inline int64_t HoldNanosAt(int64_t now) { return now; }

#else

// What HoldNanos answers instead of the steady clock's time. Null: that time.
// Set by testing/hold_clock.h. The function may be called by any thread.
using HoldClockFn = int64_t (*)();
extern constinit std::atomic<HoldClockFn> hold_clock_fn;

// Nanoseconds; only differences have a meaning.
inline int64_t HoldNanos() {
  // A test sets the function while no other thread holds mmu_lock, so nothing
  // is ordered by it.
  if (HoldClockFn const fn = hold_clock_fn.load(std::memory_order_relaxed);
      ABSL_PREDICT_FALSE(fn != nullptr)) {
    return fn();
  }
  return MonotonicNanos();
}
// The same, for who has just looked at the steady clock and read `now`.
inline int64_t HoldNanosAt(int64_t now) {
  HoldClockFn const fn = hold_clock_fn.load(std::memory_order_relaxed);
  return ABSL_PREDICT_FALSE(fn != nullptr) ? fn() : now;
}

#endif

}  // namespace mmu

#endif  // MMU_CORE_SYNC_HOLD_CLOCK_H_
