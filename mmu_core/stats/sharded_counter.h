// A counter that many threads may increment at once without sharing a cache
// line.

#ifndef MMU_CORE_STATS_SHARDED_COUNTER_H_
#define MMU_CORE_STATS_SHARDED_COUNTER_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "absl/base/optimization.h"
#include "mmu_core/base/thread_index.h"

namespace mmu {

// Each shard but the last belongs to one thread; the last belongs to all other
// threads.
inline constexpr int kCounterShards = 64;
inline constexpr int kCacheLineBytes = 64;

// N counters that the same threads increment together: they share the
// padding. Costs kCounterShards * round_up(8 * N, 64) bytes.
//
// Exact: no count is lost. Sum() taken while others count may miss the latest.
// Thread-safe.
template <int N>
class ShardedCounters {
 public:
  void Add(int counter, uint64_t n = 1) {
    const uint32_t index = ThreadIndex();
    if (ABSL_PREDICT_TRUE(index < kCounterShards - 1)) {
      // No other thread writes here while this thread lives (thread_index.h).
      std::atomic<uint64_t>& value = shards_[index].values[counter];
      value.store(value.load(std::memory_order_relaxed) + n,
                  std::memory_order_relaxed);
    } else {
      shards_[kCounterShards - 1].values[counter].fetch_add(
          n, std::memory_order_relaxed);
    }
  }
  uint64_t Sum(int counter) const {
    uint64_t sum = 0;
    for (const Shard& shard : shards_) {
      sum += shard.values[counter].load(std::memory_order_relaxed);
    }
    return sum;
  }

 private:
  struct alignas(kCacheLineBytes) Shard {
    std::array<std::atomic<uint64_t>, N> values{};
  };
  std::array<Shard, kCounterShards> shards_;
};

// One such counter. Thread-safe.
class ShardedCounter {
 public:
  void Add(uint64_t n = 1) { counters_.Add(0, n); }
  uint64_t Sum() const { return counters_.Sum(0); }

 private:
  ShardedCounters<1> counters_;
};

}  // namespace mmu

#endif  // MMU_CORE_STATS_SHARDED_COUNTER_H_
