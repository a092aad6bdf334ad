// The counters of one VM's shadow MMU, under KVM's names (STAT-03..10, 13, 14).
//
// Nearly all are written under mmu_lock in write mode, so they are plain
// atomics, and relaxed: they order nothing.

#ifndef MMU_CORE_STATS_SHADOW_COUNTERS_H_
#define MMU_CORE_STATS_SHADOW_COUNTERS_H_

#include <atomic>
#include <cstdint>

namespace mmu {

// The names of the counters, once for both of their uses: `Number` is an atomic
// where the MMU counts (ShadowCounters), and uint64_t in a copy
// (VmStatsSnapshot). The comments say which lock a writer holds.
template <typename Number>
struct ShadowNumbers {
  // Written under mmu_lock in write mode.
  Number mmu_shadow_zapped{};
  Number mmu_pte_write{};
  Number mmu_pde_zapped{};
  Number mmu_flooded{};
  Number mmu_recycled{};
  Number mmu_cache_miss{};
  Number mmu_shadow_pages{};              // a gauge
  Number max_mmu_rmap_size{};             // a peak
  Number max_mmu_page_hash_collisions{};  // a peak
  // A gauge, written under mmu_lock in either mode.
  Number mmu_unsync{};
};

// Any thread may read.
struct ShadowCounters : ShadowNumbers<std::atomic<uint64_t>> {
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
