// When to try a call again, and how long to wait before that.

#ifndef CLIENT_MMU_CLIENT_RETRY_POLICY_H_
#define CLIENT_MMU_CLIENT_RETRY_POLICY_H_

#include <random>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace mmud::client {

// A value.
struct RetryPolicy {
  int max_attempts = 6;  // the first one included; 1: never try again
  absl::Duration initial_backoff = absl::Milliseconds(50);
  absl::Duration max_backoff = absl::Seconds(5);
  double multiplier = 2.0;
};

// True for UNAVAILABLE, and for RESOURCE_EXHAUSTED with a RetryInfo, which a
// daemon sends while more goes on than it allows: codes that say that nothing
// was done, or that doing it again under the same request id is harmless. A
// limit without RetryInfo, such as that on VMs, is the same in a second.
bool IsRetryable(const absl::Status& status);

// The waits between the attempts of one call. Thread-compatible.
class Backoff {
 public:
  explicit Backoff(const RetryPolicy& policy);

  // True if another attempt is allowed.
  bool MayRetry() const { return attempts_ < policy_.max_attempts; }

  // Counts an attempt that ended with `status` and returns how long to wait
  // before the next one: exponential, at random between half of it and all of
  // it so that clients spread out, and never less than the RetryInfo of
  // `status` asks for.
  absl::Duration NextDelay(const absl::Status& status);

  // Progress was made: waits are short again and attempts count anew.
  void Reset();

 private:
  const RetryPolicy policy_;
  int attempts_ = 1;  // the one under way included
  absl::Duration next_;
  std::minstd_rand random_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_RETRY_POLICY_H_
