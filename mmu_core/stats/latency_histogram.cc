#include "mmu_core/stats/latency_histogram.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>

namespace mmu {
namespace {

int BucketOf(int64_t nanos) {
  int bucket = 0;
  while (bucket < kLatencyBounds && nanos > LatencyBoundNanos(bucket)) {
    ++bucket;
  }
  return bucket;
}

}  // namespace

void LatencySnapshot::Add(const LatencySnapshot& other) {
  for (size_t i = 0; i < counts.size(); ++i) counts[i] += other.counts[i];
  count += other.count;
  sum_nanos += other.sum_nanos;
  max_nanos = std::max(max_nanos, other.max_nanos);
}

int64_t LatencySnapshot::QuantileNanos(double q) const {
  if (count == 0) return 0;
  const auto wanted = static_cast<uint64_t>(
      std::ceil(std::clamp(q, 0.0, 1.0) * static_cast<double>(count)));
  uint64_t seen = 0;
  for (int i = 0; i < kLatencyBounds; ++i) {
    seen += counts[i];
    if (seen >= wanted && seen > 0) return LatencyBoundNanos(i);
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
    snapshot.counts[i] = counts_[i].load(std::memory_order_relaxed);
    snapshot.count += snapshot.counts[i];
  }
  snapshot.sum_nanos = sum_nanos_.load(std::memory_order_relaxed);
  snapshot.max_nanos = max_nanos_.load(std::memory_order_relaxed);
  return snapshot;
}

}  // namespace mmu
