// The counters of one VM's shadow MMU, under KVM's names (STAT-03..10, 13, 14).
//
// Nearly all are written under mmu_lock in write mode, so they are plain
// atomics, and relaxed: they order nothing.

#ifndef MMU_CORE_STATS_SHADOW_COUNTERS_H_
#define MMU_CORE_STATS_SHADOW_COUNTERS_H_

#include <atomic>
#include <cstdint>

namespace mmu {

// Any thread may read. The comments say which lock a writer holds.
struct ShadowCounters {
  // Written under mmu_lock in write mode.
  std::atomic<uint64_t> mmu_shadow_zapped{0};
  std::atomic<uint64_t> mmu_pte_write{0};
  std::atomic<uint64_t> mmu_pde_zapped{0};
  std::atomic<uint64_t> mmu_flooded{0};
  std::atomic<uint64_t> mmu_recycled{0};
  std::atomic<uint64_t> mmu_cache_miss{0};
  std::atomic<uint64_t> mmu_shadow_pages{0};              // a gauge
  std::atomic<uint64_t> max_mmu_rmap_size{0};             // a peak
  std::atomic<uint64_t> max_mmu_page_hash_collisions{0};  // a peak
  // A gauge, written under mmu_lock in either mode.
  std::atomic<uint64_t> mmu_unsync{0};

  static void Add(std::atomic<uint64_t>& counter, uint64_t n = 1) {
    counter.fetch_add(n, std::memory_order_relaxed);
  }
  static void Subtract(std::atomic<uint64_t>& gauge, uint64_t n = 1) {
    gauge.fetch_sub(n, std::memory_order_relaxed);
  }
  // For a peak that one thread at a time writes.
  static void Raise(std::atomic<uint64_t>& peak, uint64_t value) {
    if (value > Get(peak)) peak.store(value, std::memory_order_relaxed);
  }
  static uint64_t Get(const std::atomic<uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  }
};

}  // namespace mmu

#endif  // MMU_CORE_STATS_SHADOW_COUNTERS_H_
