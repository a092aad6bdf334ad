// The steps of a litmus test whose two threads meet once a round: a thread
// waits for the other's number of a round, and delays its own part.

#ifndef MMU_CORE_TESTING_LITMUS_H_
#define MMU_CORE_TESTING_LITMUS_H_

#include <atomic>
#include <thread>

namespace mmu::testing {

// Waits until `value` differs from `old`, and returns the new value. An acquire
// load: what the other thread wrote before its release store is visible.
inline int AwaitChange(const std::atomic<int>& value, int old) {
  int now = value.load(std::memory_order_acquire);
  for (int i = 0; now == old; ++i) {
    if (i > 10'000) std::this_thread::yield();
    now = value.load(std::memory_order_acquire);
  }
  return now;
}

// Delays the caller by an amount that changes from round to round, so that the
// threads meet at every possible distance. Adds no barrier of the processor.
inline void DelayInRound(int round) {
  for (int i = 0; i < round * 7 % 512; ++i) {
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
}

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_LITMUS_H_
