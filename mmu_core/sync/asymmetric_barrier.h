// A memory barrier whose frequent side is free.
//
// Two threads that each store to one variable and then load the other's both
// need a full barrier in between; otherwise both may read the old value. Here
// one side runs at every guest access and the other once per flush. The
// frequent side only prevents compiler reordering (LightBarrier); the rare side
// makes every running thread of the process execute a full barrier
// (HeavyBarrier, membarrier(2)). If the kernel lacks that system call, both are
// ordinary sequentially consistent fences; the choice is made at start-up.

#ifndef MMU_CORE_SYNC_ASYMMETRIC_BARRIER_H_
#define MMU_CORE_SYNC_ASYMMETRIC_BARRIER_H_

#include <atomic>

#include "absl/base/optimization.h"

// ThreadSanitizer does not model fences. Under TSan both barriers do nothing,
// and the accesses around them must be sequentially consistent themselves
// (kBarrierOrder).
#if defined(__SANITIZE_THREAD__)
#define MMU_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MMU_TSAN 1
#endif
#endif

namespace mmu {

namespace asymmetric_barrier_internal {
// Set before main(), constant afterwards.
extern const bool have_membarrier;
}  // namespace asymmetric_barrier_internal

#ifdef MMU_TSAN

// Order of the accesses on both sides of a barrier.
inline constexpr std::memory_order kBarrierOrder = std::memory_order_seq_cst;
inline void LightBarrier() {}
inline void HeavyBarrier() {}

#else

inline constexpr std::memory_order kBarrierOrder = std::memory_order_relaxed;

// Thread-safe.
inline void LightBarrier() {
  if (ABSL_PREDICT_TRUE(asymmetric_barrier_internal::have_membarrier)) {
    std::atomic_signal_fence(std::memory_order_seq_cst);
  } else {
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
}

// Thread-safe. Takes microseconds.
void HeavyBarrier();

#endif

// For loads after a barrier that must also acquire.
inline constexpr std::memory_order kBarrierAcquire =
    kBarrierOrder == std::memory_order_seq_cst ? std::memory_order_seq_cst
                                               : std::memory_order_acquire;

}  // namespace mmu

#endif  // MMU_CORE_SYNC_ASYMMETRIC_BARRIER_H_
