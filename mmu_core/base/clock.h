// Time as a thing one is given, so that tests can move it.

#ifndef MMU_CORE_BASE_CLOCK_H_
#define MMU_CORE_BASE_CLOCK_H_

#include <cstdint>

namespace mmu {

// A monotonic clock. Its zero has no meaning; only differences do.
// Implementations are thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  // Nanoseconds; never less than an earlier answer to the same thread.
  virtual int64_t NowNanos() const = 0;

  // The steady clock of this machine. Lives forever.
  static Clock& Real();
};

}  // namespace mmu

#endif  // MMU_CORE_BASE_CLOCK_H_
