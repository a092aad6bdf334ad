// The clock by which a holder of mmu_lock decides that it has held the lock
// long enough. It is separate from other clocks so that in tests the test
// decides when a hold ends, not the speed of the machine.

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
// The same, for callers that have just read `now` from the steady clock.
inline int64_t HoldNanosAt(int64_t now) { return now; }

#else

// The function that HoldNanos calls in place of the steady clock; null: the
// steady clock. Set by testing/hold_clock.h. Any thread may call the function.
using HoldClockFn = int64_t (*)();
extern constinit std::atomic<HoldClockFn> hold_clock_fn;

// Nanoseconds; only differences have a meaning.
inline int64_t HoldNanos() {
  // Relaxed: a test sets the function only while no other thread holds
  // mmu_lock.
  if (HoldClockFn const fn = hold_clock_fn.load(std::memory_order_relaxed);
      ABSL_PREDICT_FALSE(fn != nullptr)) {
    return fn();
  }
  return MonotonicNanos();
}
// The same, for callers that have just read `now` from the steady clock.
inline int64_t HoldNanosAt(int64_t now) {
  HoldClockFn const fn = hold_clock_fn.load(std::memory_order_relaxed);
  return ABSL_PREDICT_FALSE(fn != nullptr) ? fn() : now;
}

#endif

}  // namespace mmu

#endif  // MMU_CORE_SYNC_HOLD_CLOCK_H_
