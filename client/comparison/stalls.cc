#include "client/comparison/stalls.h"

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/mmu_client/time_conversion.h"

namespace mmud::client {
namespace {

absl::Duration UpperBound(const v1::DurationHistogram::Bucket& bucket) {
  return bucket.has_upper_bound() ? FromProto(bucket.upper_bound())
                                  : absl::InfiniteDuration();
}

bool SameBuckets(const v1::DurationHistogram& a,
                 const v1::DurationHistogram& b) {
  if (a.buckets_size() != b.buckets_size()) return false;
  for (int i = 0; i < a.buckets_size(); ++i) {
    if (UpperBound(a.buckets(i)) != UpperBound(b.buckets(i))) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<v1::DurationHistogram> Sum(const v1::DurationHistogram& a,
                                          const v1::DurationHistogram& b) {
  if (a.buckets().empty()) return b;
  if (b.buckets().empty()) return a;
  if (!SameBuckets(a, b)) {
    return absl::InternalError(
        "the daemon sent two histograms of stalls with different buckets");
  }
  v1::DurationHistogram sum = a;
  for (int i = 0; i < a.buckets_size(); ++i) {
    sum.mutable_buckets(i)->set_observation_count(
        a.buckets(i).observation_count() + b.buckets(i).observation_count());
  }
  sum.set_observation_count(a.observation_count() + b.observation_count());
  *sum.mutable_total() = ToProto(FromProto(a.total()) + FromProto(b.total()));
  return sum;
}

std::optional<Percentile> PercentileOf(const v1::DurationHistogram& histogram,
                                       int64_t per_mille) {
  int64_t count = 0;
  for (const auto& bucket : histogram.buckets()) {
    count += bucket.observation_count();
  }
  if (count == 0) return std::nullopt;
  // The rank of the observation, from 1.
  const int64_t rank = (count * per_mille + 999) / 1000;
  Percentile percentile = {absl::ZeroDuration(), absl::ZeroDuration()};
  int64_t seen = 0;
  for (const auto& bucket : histogram.buckets()) {
    percentile.more_than = percentile.at_most;
    percentile.at_most = UpperBound(bucket);
    seen += bucket.observation_count();
    if (seen >= rank) break;
  }
  return percentile;
}

}  // namespace mmud::client
