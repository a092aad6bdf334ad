// How long vCPUs stood still for page faults, as percentiles of a histogram.

#ifndef CLIENT_COMPARISON_STALLS_H_
#define CLIENT_COMPARISON_STALLS_H_

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "mmud/v1/common.pb.h"

namespace mmud::client {

// The observations of both histograms. An empty message counts as a histogram
// without observations. INTERNAL if their buckets differ.
absl::StatusOr<v1::DurationHistogram> Sum(const v1::DurationHistogram& a,
                                          const v1::DurationHistogram& b);

// A percentile is known to one bucket of its histogram. A value.
struct Percentile {
  absl::Duration more_than;  // 0 in the first bucket, whose lower end it is
  absl::Duration at_most;    // InfiniteDuration() in the last bucket
};

// The bucket of the smallest duration that at least `per_mille` thousandths of
// the observations do not exceed. Nothing if there are no observations.
// REQUIRES: 0 < per_mille <= 1000.
std::optional<Percentile> PercentileOf(const v1::DurationHistogram& histogram,
                                       int64_t per_mille);

}  // namespace mmud::client

#endif  // CLIENT_COMPARISON_STALLS_H_
