// A clock that stands still until a test moves it.

#ifndef MMU_CORE_TESTING_FAKE_CLOCK_H_
#define MMU_CORE_TESTING_FAKE_CLOCK_H_

#include <atomic>
#include <cstdint>

#include "mmu_core/base/clock.h"

namespace mmu {

// Thread-safe.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(int64_t start_nanos = 1'000'000'000)
      : nanos_(start_nanos) {}

  int64_t NowNanos() const override {
    return nanos_.load(std::memory_order_acquire);
  }

  // REQUIRES: nanos >= 0.
  void Advance(int64_t nanos) {
    nanos_.fetch_add(nanos, std::memory_order_acq_rel);
  }

 private:
  std::atomic<int64_t>
      nanos_;  // release order: a reader sees all that came before
};

}  // namespace mmu

#endif  // MMU_CORE_TESTING_FAKE_CLOCK_H_
