#include "mmu_core/stats/latency_histogram.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>

namespace mmu {
namespace {

// The bucket of a duration. A duration that equals the upper bound of a bucket
// belongs to that bucket: hence `nanos - 1`.
int BucketOf(int64_t nanos) {
  if (nanos <= 0) return 0;
  const auto micros = static_cast<uint64_t>(nanos - 1) / 1000;
  if (micros < 4) return static_cast<int>(micros);
  const int octave = std::bit_width(micros) - 1;
  const int quarter = static_cast<int>(micros >> (octave - 2)) & 3;
  const int above_promise = micros >= kPromisedHoldNanos / 1000 ? 1 : 0;
  return std::min(4 * (octave - 1) + quarter + above_promise,
                  kFineLatencyBounds);
}

}  // namespace

std::array<uint64_t, kLatencyBounds + 1> LatencySnapshot::counts() const {
  std::array<uint64_t, kLatencyBounds + 1> coarse{};
  if (fine.empty()) return coarse;
  int bucket = 0;
  for (int i = 0; i < kFineLatencyBounds; ++i) {
    if (FineLatencyBoundNanos(i) > LatencyBoundNanos(bucket)) ++bucket;
    coarse[bucket] += fine[i];
  }
  coarse[kLatencyBounds] = fine[kFineLatencyBounds];
  return coarse;
}

void LatencySnapshot::Record(int64_t nanos) {
  fine.resize(kFineLatencyBounds + 1);
  ++fine[BucketOf(nanos)];
  ++count;
  sum_nanos += nanos;
  max_nanos = std::max(max_nanos, nanos);
}

void LatencySnapshot::Add(const LatencySnapshot& other) {
  fine.resize(std::max(fine.size(), other.fine.size()));
  for (size_t i = 0; i < other.fine.size(); ++i) fine[i] += other.fine[i];
  count += other.count;
  sum_nanos += other.sum_nanos;
  max_nanos = std::max(max_nanos, other.max_nanos);
}

LatencySnapshot LatencySnapshot::Since(const LatencySnapshot& earlier) const {
  LatencySnapshot since = *this;
  for (size_t i = 0; i < earlier.fine.size(); ++i) {
    since.fine[i] -= earlier.fine[i];
  }
  since.count -= earlier.count;
  since.sum_nanos -= earlier.sum_nanos;
  return since;
}

int64_t LatencySnapshot::QuantileNanos(double q) const {
  if (count == 0) return 0;
  const auto wanted = std::max<uint64_t>(
      1, static_cast<uint64_t>(
             std::ceil(std::clamp(q, 0.0, 1.0) * static_cast<double>(count))));
  uint64_t seen = 0;
  for (int i = 0; i < kFineLatencyBounds; ++i) {
    seen += fine[i];
    if (seen >= wanted) return std::min(FineLatencyBoundNanos(i), max_nanos);
  }
  return max_nanos;
}

void LatencyHistogram::Record(int64_t nanos, uint64_t weight) {
  counts_[BucketOf(nanos)].fetch_add(weight, std::memory_order_relaxed);
  sum_nanos_.fetch_add(nanos * static_cast<int64_t>(weight),
                       std::memory_order_relaxed);
  int64_t max = max_nanos_.load(std::memory_order_relaxed);
  while (nanos > max && !max_nanos_.compare_exchange_weak(
                            max, nanos, std::memory_order_relaxed)) {
  }
}

LatencySnapshot LatencyHistogram::Snapshot() const {
  LatencySnapshot snapshot;
  for (size_t i = 0; i < counts_.size(); ++i) {
    const uint64_t n = counts_[i].load(std::memory_order_relaxed);
    if (n == 0) continue;
    snapshot.fine.resize(counts_.size());
    snapshot.fine[i] = n;
    snapshot.count += n;
  }
  snapshot.sum_nanos = sum_nanos_.load(std::memory_order_relaxed);
  snapshot.max_nanos = max_nanos_.load(std::memory_order_relaxed);
  return snapshot;
}

}  // namespace mmu
