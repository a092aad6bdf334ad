// Waiting for another thread without sleeping, for a moment.

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

// The pauses of a loop that waits for what another thread does within
// nanoseconds, unless it has lost its processor in the middle of it. So: spin
// for about a microsecond, then give this processor away, and only then sleep,
// since waking up takes far longer than what is waited for.
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

// Nanoseconds of a clock that never goes back.
inline int64_t MonotonicNanos() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace mmu

#endif  // MMU_CORE_SYNC_SPIN_H_
