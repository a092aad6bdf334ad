#include "client/mmu_client/retry_policy.h"

#include <algorithm>
#include <random>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/mmu_client/error_info.h"

namespace mmud::client {

bool IsRetryable(const absl::Status& status) {
  if (absl::IsUnavailable(status)) return true;
  return absl::IsResourceExhausted(status) &&
         ErrorInfoOf(status).retry_delay.has_value();
}

Backoff::Backoff(const RetryPolicy& policy)
    : policy_(policy),
      next_(policy.initial_backoff),
      random_(std::random_device()()) {}

absl::Duration Backoff::NextDelay(const absl::Status& status) {
  ++attempts_;
  std::uniform_real_distribution<double> share(0.5, 1.0);
  const absl::Duration delay = next_ * share(random_);
  next_ = std::min(next_ * policy_.multiplier, policy_.max_backoff);
  const ErrorInfo info = ErrorInfoOf(status);
  return std::max(delay, info.retry_delay.value_or(absl::ZeroDuration()));
}

void Backoff::Reset() {
  attempts_ = 1;
  next_ = policy_.initial_backoff;
}

}  // namespace mmud::client
