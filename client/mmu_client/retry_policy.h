// Decides whether to repeat a call, and how long to wait before.

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

// True for UNAVAILABLE, and for RESOURCE_EXHAUSTED with a RetryInfo, which the
// daemon sends if a limit on concurrent use is reached. After these errors
// nothing was done, or repeating the call with the same request id is harmless.
// False for a limit without RetryInfo, such as that on VMs, since waiting does
// not help.
bool IsRetryable(const absl::Status& status);

// The waits between the attempts of one call. Thread-compatible.
class Backoff {
 public:
  explicit Backoff(const RetryPolicy& policy);

  // True if another attempt is allowed.
  bool MayRetry() const { return attempts_ < policy_.max_attempts; }

  // Counts an attempt that ended with `status` and returns the wait before the
  // next attempt. The wait grows exponentially. It is at random between half of
  // this time and all of it, so that clients spread out, and never less than
  // the RetryInfo of `status` asks for.
  absl::Duration NextDelay(const absl::Status& status);

  // To be called after progress: waits are short again and attempts count anew.
  void Reset();

 private:
  const RetryPolicy policy_;
  int attempts_ = 1;  // including the one in progress
  absl::Duration next_;
  std::minstd_rand random_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_RETRY_POLICY_H_
