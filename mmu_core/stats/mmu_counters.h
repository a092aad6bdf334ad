// The counters of one MMU of a VM that several threads write. Those that
// a fault changes are sharded; the others are plain atomics. All are relaxed:
// they order nothing.

#ifndef MMU_CORE_STATS_MMU_COUNTERS_H_
#define MMU_CORE_STATS_MMU_COUNTERS_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "mmu_core/base/level.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/stats/sharded_counter.h"

namespace mmu {

// Thread-safe.
class MmuCounters {
 public:
  // STAT-11: present leafs per size. A gauge kept as wrapping sums.
  void AddLeafs(Level level, int64_t n) {
    gauges_.Add(ToInt(level) - 1, static_cast<uint64_t>(n));
  }
  uint64_t Leafs(Level level) const { return gauges_.Sum(ToInt(level) - 1); }

  // Tables in use, those of roots not included. The shadow MMU counts shadow
  // pages instead.
  void AddTables(int64_t n) { gauges_.Add(kTables, static_cast<uint64_t>(n)); }
  uint64_t Tables() const { return gauges_.Sum(kTables); }

  // `from` is k2M or k1G.
  void CountSplit(Level from, SplitTrigger trigger) {
    splits_[ToInt(from) - 2][static_cast<int>(trigger)].fetch_add(
        1, std::memory_order_relaxed);
  }
  uint64_t Splits(Level from, SplitTrigger trigger) const {
    return splits_[ToInt(from) - 2][static_cast<int>(trigger)].load(
        std::memory_order_relaxed);
  }
  void CountSplitFailure(SplitFailure reason) {
    split_failures_[static_cast<int>(reason)].fetch_add(
        1, std::memory_order_relaxed);
  }
  uint64_t SplitFailures(SplitFailure reason) const {
    return split_failures_[static_cast<int>(reason)].load(
        std::memory_order_relaxed);
  }
  void CountRecoveries(Level to, uint64_t n) {
    recoveries_[ToInt(to) - 2].fetch_add(n, std::memory_order_relaxed);
  }
  uint64_t Recoveries(Level to) const {
    return recoveries_[ToInt(to) - 2].load(std::memory_order_relaxed);
  }

  // Ageing looks at a page in all MMUs at once. The page is counted once, for
  // the MMU that the guest runs on.
  void CountAged(AgingLock lock, uint64_t young, uint64_t old) {
    auto& aged = aged_[static_cast<size_t>(lock)];
    aged[0].fetch_add(young, std::memory_order_relaxed);
    aged[1].fetch_add(old, std::memory_order_relaxed);
  }
  // `i`: 0 young, 1 old.
  uint64_t Aged(AgingLock lock, int i) const {
    return aged_[static_cast<size_t>(lock)][i].load(std::memory_order_relaxed);
  }

  ShadowCounters shadow;
  // Acquisitions of the lock of an rmap that had to wait (rmap/rmap.h).
  std::atomic<uint64_t> rmap_lock_contended{0};

 private:
  static constexpr int kTables = 3;
  ShardedCounters<4> gauges_;
  std::array<std::array<std::atomic<uint64_t>, kSplitTriggers>, 2> splits_{};
  std::array<std::atomic<uint64_t>, kSplitFailures> split_failures_{};
  std::array<std::atomic<uint64_t>, 2> recoveries_{};
  std::array<std::array<std::atomic<uint64_t>, 2>, kAgingLocks> aged_{};
};

}  // namespace mmu

#endif  // MMU_CORE_STATS_MMU_COUNTERS_H_
