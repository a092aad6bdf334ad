// A comparison whose views tests know.

#ifndef CLIENT_COMPARISON_EXAMPLE_TEST_UTIL_H_
#define CLIENT_COMPARISON_EXAMPLE_TEST_UTIL_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "client/comparison/plan.h"
#include "client/comparison/result.h"
#include "client/guest_mmu.h"
#include "client/mmu_client/time_conversion.h"
#include "mmud/v1/common.pb.h"

namespace mmud::client {

// Buckets up to 1 us, 4 us, 16 us and one without an upper bound, with these
// numbers of observations.
inline v1::DurationHistogram HistogramOf(const std::vector<int64_t>& counts) {
  v1::DurationHistogram histogram;
  int64_t sum = 0;
  absl::Duration bound = absl::Microseconds(1);
  for (size_t i = 0; i < counts.size(); ++i) {
    auto& bucket = *histogram.add_buckets();
    if (i + 1 < counts.size()) *bucket.mutable_upper_bound() = ToProto(bound);
    bound *= 4;
    bucket.set_observation_count(counts[i]);
    sum += counts[i];
  }
  histogram.set_observation_count(sum);
  return histogram;
}

// 8 MiB on 2M pages under each policy, with 2 vCPUs that only write. The pass
// of the last row ended at the time limit, and pages are missing in its log.
inline Comparison ExampleComparison() {
  PlanOptions options;
  options.mmu = &GuestMmus().front();
  options.policies = {LogPolicy::kLazy, LogPolicy::kEager,
                      LogPolicy::kThrottled};
  options.vcpu_counts = {2};
  options.write_fractions = {1.0};
  options.memory_bytes = 8 << 20;
  Comparison comparison = {.plan = *MakePlan(options), .results = {}};
  for (const Combination& combination : comparison.plan.combinations) {
    CombinationResult result;
    result.combination = combination;
    result.enabling.time = absl::Microseconds(250);
    result.pass.time = absl::Milliseconds(12);
    result.pass_times = {absl::Milliseconds(12), absl::Milliseconds(14)};
    result.pass.page_count = 2048;
    result.pass.earlier_page_count = 3;
    result.pass.access_count = 2048;
    result.pass.write_count = 2048;
    result.pass.all_written = true;
    result.faults.set_fixed_count(4);
    result.faults.set_fast_count(2044);
    result.stalls = HistogramOf({900, 90, 9, 1});
    result.flush_request_count = 3;
    result.flush_count = 1;
    result.stall_times = {{"flush", absl::Microseconds(10)},
                          {"split", absl::Microseconds(20)}};
    result.mapped_before.set_pages_2m_count(4);
    result.mapped_after.set_pages_4k_count(2048);
    result.fault_splits.emplace();
    comparison.results.push_back(result);
  }
  CombinationResult& lazy = comparison.results[0];
  lazy.fault_splits->set_split_2m_count(4);
  CombinationResult& eager = comparison.results[1];
  eager.enabling.splits.set_split_2m_count(4);
  eager.flush_request_count.reset();
  eager.flush_count.reset();
  eager.stalls = HistogramOf({0, 0, 0, 5});
  CombinationResult& throttled = comparison.results[2];
  throttled.split_ahead.emplace();
  throttled.split_ahead->time = absl::Milliseconds(4);
  throttled.split_ahead->page_count = 2048;
  throttled.split_ahead->splits.set_split_2m_count(4);
  throttled.pass.limit_reached = true;
  throttled.pass.page_count = 1024;
  throttled.pass.all_written = false;
  throttled.stalls = {};
  throttled.fault_splits.reset();
  return comparison;
}

}  // namespace mmud::client

#endif  // CLIENT_COMPARISON_EXAMPLE_TEST_UTIL_H_
