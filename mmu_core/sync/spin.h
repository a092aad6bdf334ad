// Short waits for another thread without sleeping.

#ifndef MMU_CORE_SYNC_SPIN_H_
#define MMU_CORE_SYNC_SPIN_H_

#include <chrono>
#include <cstdint>
#include <thread>

namespace mmu {

// Tells the processor that this is a waiting loop.
inline void CpuRelax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

// The pauses of a loop that waits for another thread. That thread needs only
// nanoseconds, unless it was preempted. So the loop spins for about a
// microsecond, then yields the processor, and only then sleeps, since waking up
// takes far longer than the expected wait.
// Externally synchronised: belongs to the thread that waits.
class Backoff {
 public:
  void Pause() {
    if (round_ < kSpins) {
      CpuRelax();
    } else if (round_ < kSpins + kYields) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    ++round_;
  }

 private:
  static constexpr uint32_t kSpins = 64;
  static constexpr uint32_t kYields = 256;

  uint32_t round_ = 0;
};

// Nanoseconds of the monotonic clock.
inline int64_t MonotonicNanos() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace mmu

#endif  // MMU_CORE_SYNC_SPIN_H_
