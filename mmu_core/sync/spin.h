// Waiting for another thread without sleeping, for a moment.

#ifndef MMU_CORE_SYNC_SPIN_H_
#define MMU_CORE_SYNC_SPIN_H_

#include <chrono>
#include <cstdint>

namespace mmu {

// Tells the processor that this is a waiting loop.
inline void CpuRelax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

// Nanoseconds of a clock that never goes back.
inline int64_t MonotonicNanos() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace mmu

#endif  // MMU_CORE_SYNC_SPIN_H_
