// Decides when holders of mmu_lock find that they have held it for too long, so
// that a test which counts holds, flushes or yields has the same result on a
// busy machine and under a sanitizer.
//
// A test whose expectation holds only if no walk yields makes a StillHoldClock.
// A test of the yields makes a LeapingHoldClock. All other tests must pass with
// either. Tests of walks that yield run with both (testing/yields.bzl); `bazel
// test --config=yields //mmu_core/...` runs all tests with a leaping clock.

#ifndef MMU_CORE_TESTING_HOLD_CLOCK_H_
#define MMU_CORE_TESTING_HOLD_CLOCK_H_

#include <cstdint>

namespace mmu::testing {

// Replaces the clock during its lifetime. It must begin and end while no other
// thread holds mmu_lock. It has no effect in programs built with NDEBUG, which
// cannot replace the clock. Externally synchronised: belongs to the test's main
// thread.
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

// No time passes: a walk releases mmu_lock only if another thread waits for it.
class StillHoldClock : public ReplacedHoldClock {
 public:
  StillHoldClock();
};

// Ten seconds pass between two reads: a walk releases mmu_lock each time that
// it reads the clock.
class LeapingHoldClock : public ReplacedHoldClock {
 public:
  LeapingHoldClock();
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_HOLD_CLOCK_H_
