// A latency histogram with the fixed buckets of every duration this project
// exports: powers of 4 from 1 us to 4 s, and one for everything longer.

#ifndef MMU_CORE_STATS_LATENCY_HISTOGRAM_H_
#define MMU_CORE_STATS_LATENCY_HISTOGRAM_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

namespace mmu {

// Upper bounds in nanoseconds: 1 us * 4^i, i = 0..11 (4^11 us = 4.19 s).
inline constexpr int kLatencyBounds = 12;
constexpr int64_t LatencyBoundNanos(int i) { return int64_t{1000} << (2 * i); }

// Inside, each of these buckets is divided, so that a quantile is known to a
// quarter of itself. Bucket i < 4 holds the i-th microsecond (from a little
// more than i to i + 1); from there on every power of two has four.
inline constexpr int kFineLatencyBounds = 4 + 4 * 20;
// Upper bounds in nanoseconds: 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, ... us.
constexpr int64_t FineLatencyBoundNanos(int i) {
  const int64_t micros = i < 4 ? i + 1 : (int64_t{5} + i % 4) << (i / 4 - 1);
  return 1000 * micros;
}
static_assert(FineLatencyBoundNanos(4) == 5'000 &&
              FineLatencyBoundNanos(8) == 10'000);
static_assert(FineLatencyBoundNanos(kFineLatencyBounds - 1) ==
              LatencyBoundNanos(kLatencyBounds - 1));

// A copied histogram. A value.
struct LatencySnapshot {
  // fine[i] is the number of values at or below fine bound i and above fine
  // bound i-1; the last one has no upper bound. Empty if there are no values:
  // most histograms of most VMs have none, and sets of them are copied around.
  std::vector<uint64_t> fine;
  uint64_t count = 0;
  int64_t sum_nanos = 0;
  int64_t max_nanos = 0;

  // The same by the exported bounds.
  std::array<uint64_t, kLatencyBounds + 1> counts() const;
  void Record(int64_t nanos);
  void Add(const LatencySnapshot& other);
  // What was recorded since `earlier`, a copy of the same histogram. The
  // maximum stays that of all.
  LatencySnapshot Since(const LatencySnapshot& earlier) const;
  // An upper bound of quantile `q` (0..1), at most a quarter above it; the
  // maximum where nothing is known to be above; 0 without values.
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
  std::array<std::atomic<uint64_t>, kFineLatencyBounds + 1> counts_{};
  std::atomic<int64_t> sum_nanos_{0};
  std::atomic<int64_t> max_nanos_{0};
};

}  // namespace mmu

#endif  // MMU_CORE_STATS_LATENCY_HISTOGRAM_H_
