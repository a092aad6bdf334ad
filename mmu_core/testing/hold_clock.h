// Says when holders of mmu_lock find that they have held it for too long, so
// that a test which counts holds, flushes or yields has the same answer on a
// busy machine and under a sanitizer.
//
// A test whose expectation holds only if nobody yields makes a StillHoldClock.
// A test of the yields makes a LeapingHoldClock. All other tests have to pass
// with either. Those of walks that yield are run with both
// (testing/yields.bzl); `bazel test --config=yields //mmu_core/...` runs all
// with a clock that leaps.

#ifndef MMU_CORE_TESTING_HOLD_CLOCK_H_
#define MMU_CORE_TESTING_HOLD_CLOCK_H_

#include <cstdint>

namespace mmu::testing {

// Replaces the clock for its lifetime. To be made and ended while no other
// thread holds mmu_lock. Without effect in programs built with NDEBUG, which
// cannot replace the clock.
// Externally synchronised: belongs to the test's main thread.
class ReplacedHoldClock {
 public:
  ReplacedHoldClock(const ReplacedHoldClock&) = delete;
  ReplacedHoldClock& operator=(const ReplacedHoldClock&) = delete;

 protected:
  using Fn = int64_t (*)();
  explicit ReplacedHoldClock(Fn fn);
  ~ReplacedHoldClock();

 private:
  const Fn before_;
};

// No time passes: a walk lets go of mmu_lock only when somebody waits for it.
class StillHoldClock : public ReplacedHoldClock {
 public:
  StillHoldClock();
};

// Ten seconds pass from look to look: a walk lets go of mmu_lock each time that
// it looks.
class LeapingHoldClock : public ReplacedHoldClock {
 public:
  LeapingHoldClock();
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_HOLD_CLOCK_H_
