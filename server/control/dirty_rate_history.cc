#include "server/control/dirty_rate_history.h"

#include <algorithm>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/reason.h"
#include "server/base/errors.h"

namespace mmud {
namespace {

// `vcpus`: number of vCPUs that the counters cover.
DirtyRates RatesOf(const DirtyCounts& from, const DirtyCounts& to,
                   double seconds, size_t vcpus) {
  return {
      .pages_per_second =
          static_cast<double>(to.dirty_pages - from.dirty_pages) / seconds,
      .write_faults_per_second =
          static_cast<double>(to.write_faults - from.write_faults) / seconds,
      .ring_full_ratio = std::min(
          1.0, static_cast<double>(to.ring_full_nanos - from.ring_full_nanos) *
                   1e-9 / seconds /
                   static_cast<double>(std::max<size_t>(vcpus, 1)))};
}

}  // namespace

void DirtyRateHistory::Add(const DirtySample& sample) {
  absl::MutexLock lock(&mu_);
  if (!samples_.empty() && sample.time <= samples_.back().time) return;
  samples_.push_back(sample);
  // One sample older than the longest window must be kept.
  while (samples_.size() > 2 && samples_[1].time < sample.time - kLongest) {
    samples_.pop_front();
  }
}

void DirtyRateHistory::Restart(const DirtySample& sample) {
  absl::MutexLock lock(&mu_);
  samples_.assign(1, sample);
}

absl::StatusOr<DirtyRateResult> DirtyRateHistory::Rate(
    const DirtySample& now, absl::Duration window) const {
  absl::MutexLock lock(&mu_);
  const mmu::MonotonicTime latest = now.time - window;
  const auto after = std::find_if(
      samples_.begin(), samples_.end(),
      [latest](const DirtySample& sample) { return sample.time > latest; });
  if (after == samples_.begin()) {
    const absl::Duration missing =
        samples_.empty() ? window : samples_.front().time - latest;
    return WithRetryDelay(
        ApiError(absl::StatusCode::kFailedPrecondition,
                 mmu::Reason::kInsufficientHistory,
                 absl::StrCat("there is not yet a history of ",
                              absl::FormatDuration(window), "; try again in ",
                              absl::FormatDuration(
                                  absl::Ceil(missing, absl::Milliseconds(1))))),
        missing);
  }
  const DirtySample& from = *(after - 1);
  DirtyRateResult result;
  result.observed = now.time - from.time;
  const double seconds = absl::ToDoubleSeconds(result.observed);
  result.vm = RatesOf(from.vm, now.vm, seconds, now.vcpus.size());
  for (size_t i = 0; i < now.vcpus.size(); ++i) {
    result.vcpus.push_back(RatesOf(from.vcpus[i], now.vcpus[i], seconds, 1));
  }
  return result;
}

}  // namespace mmud
