// A latency histogram with the fixed buckets of every duration this project
// exports: powers of 4 from 1 us to more than an hour, 200 us, and one bucket
// for everything longer.

#ifndef MMU_CORE_STATS_LATENCY_HISTOGRAM_H_
#define MMU_CORE_STATS_LATENCY_HISTOGRAM_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

namespace mmu {

// The default of max_lock_hold. It is a bound, so that the number of holds
// within it is exact.
inline constexpr int64_t kPromisedHoldNanos = 200'000;

// Upper bounds in nanoseconds: 1, 4, 16, 64, 200, 256 us and on by powers of 4,
// to 4^16 us = 71.6 min.
inline constexpr int kLatencyBounds = 18;
constexpr int64_t LatencyBoundNanos(int i) {
  if (i == 4) return kPromisedHoldNanos;
  return int64_t{1000} << (2 * (i < 4 ? i : i - 1));
}
// The number of bounds up to 4.19 s: enough for a single step.
inline constexpr int kStepLatencyBounds = 13;
static_assert(LatencyBoundNanos(kStepLatencyBounds - 1) == 4'194'304'000);

// Internally, each of these buckets is divided, so that a quantile is known to
// a quarter of itself. Bucket i < 4 holds the i-th microsecond (from a little
// more than i to i + 1); from there on every power of two has four, and one of
// these is divided once more, at 200 us.
inline constexpr int kFineLatencyBounds = 4 + 4 * 30 + 1;
inline constexpr int kPromisedHoldBucket = 26;
// Upper bounds in nanoseconds: 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, ... us.
constexpr int64_t FineLatencyBoundNanos(int i) {
  if (i == kPromisedHoldBucket) return kPromisedHoldNanos;
  const int quarter = i < kPromisedHoldBucket ? i : i - 1;
  const int64_t micros = quarter < 4
                             ? quarter + 1
                             : (int64_t{5} + quarter % 4) << (quarter / 4 - 1);
  return 1000 * micros;
}
static_assert(FineLatencyBoundNanos(4) == 5'000 &&
              FineLatencyBoundNanos(8) == 10'000);
static_assert(FineLatencyBoundNanos(kPromisedHoldBucket - 1) == 192'000 &&
              FineLatencyBoundNanos(kPromisedHoldBucket + 1) == 224'000);
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

  // The number of values by the exported bounds.
  std::array<uint64_t, kLatencyBounds + 1> counts() const;
  void Record(int64_t nanos);
  void Add(const LatencySnapshot& other);
  // The values recorded since `earlier`, a copy of the same histogram. The
  // maximum stays that of all values.
  LatencySnapshot Since(const LatencySnapshot& earlier) const;
  // An upper bound of quantile `q` (0..1): at most a quarter above it, and
  // never above the maximum. 0 without values.
  int64_t QuantileNanos(double q) const;
};

// Thread-safe. All fields are independent relaxed atomics: a snapshot taken
// while a value is recorded may lack a part of the value.
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
