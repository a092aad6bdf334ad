#include "mmu_core/testing/hold_clock.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "mmu_core/sync/hold_clock.h"

namespace mmu::testing {
namespace {

using Fn = int64_t (*)();

// Returns the previous function.
Fn Replace(Fn fn) {
#ifdef NDEBUG
  return fn;
#else
  return hold_clock_fn.exchange(fn, std::memory_order_relaxed);
#endif
}

int64_t Still() { return 0; }

int64_t Leap() {
  constexpr int64_t kLeapNanos = 10'000'000'000;
  static std::atomic<int64_t> now = 0;
  return now.fetch_add(kLeapNanos, std::memory_order_relaxed);
}

// --config=yields sets the environment variable: tests that make no clock of
// their own then run with a leaping one.
[[maybe_unused]] const bool leaps_from_the_start = [] {
  const char* const clock = std::getenv("MMU_HOLD_CLOCK");
  if (clock == nullptr || std::string_view(clock) != "leaping") return false;
  Replace(&Leap);
  return true;
}();

}  // namespace

ReplacedHoldClock::ReplacedHoldClock(Fn fn) : before_(Replace(fn)) {}

ReplacedHoldClock::~ReplacedHoldClock() { Replace(before_); }

StillHoldClock::StillHoldClock() : ReplacedHoldClock(&Still) {}

LeapingHoldClock::LeapingHoldClock() : ReplacedHoldClock(&Leap) {}

}  // namespace mmu::testing
