// A latency histogram with the fixed buckets of every duration this project
// exports: powers of 4 from 1 us to 4 s, and one for everything longer.

#ifndef MMU_CORE_STATS_LATENCY_HISTOGRAM_H_
#define MMU_CORE_STATS_LATENCY_HISTOGRAM_H_

#include <array>
#include <atomic>
#include <cstdint>

namespace mmu {

// Upper bounds in nanoseconds: 1 us * 4^i, i = 0..11 (4^11 us = 4.19 s).
inline constexpr int kLatencyBounds = 12;
constexpr int64_t LatencyBoundNanos(int i) { return int64_t{1000} << (2 * i); }

// A copied histogram. `counts[i]` is the number of values at or below bound i
// and above bound i-1; the last one has no upper bound. A value.
struct LatencySnapshot {
  std::array<uint64_t, kLatencyBounds + 1> counts{};
  uint64_t count = 0;
  int64_t sum_nanos = 0;
  int64_t max_nanos = 0;

  void Add(const LatencySnapshot& other);
  // Upper bound of the bucket in which quantile `q` (0..1) lies; the maximum
  // for the unbounded one; 0 without values.
  int64_t QuantileNanos(double q) const;
};

// Thread-safe. All fields are independent relaxed atomics: a snapshot taken
// while values arrive may miss some of a value's parts, never invent any.
class LatencyHistogram {
 public:
  // `weight`: how many events this one stands for (sampling).
  void Record(int64_t nanos, uint64_t weight = 1);
  LatencySnapshot Snapshot() const;

 private:
  std::array<std::atomic<uint64_t>, kLatencyBounds + 1> counts_{};
  std::atomic<int64_t> sum_nanos_{0};
  std::atomic<int64_t> max_nanos_{0};
};

}  // namespace mmu

#endif  // MMU_CORE_STATS_LATENCY_HISTOGRAM_H_
