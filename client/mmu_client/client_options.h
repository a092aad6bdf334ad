// Deadlines and retries of the client library.

#ifndef CLIENT_MMU_CLIENT_CLIENT_OPTIONS_H_
#define CLIENT_MMU_CLIENT_CLIENT_OPTIONS_H_

#include <functional>
#include <optional>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/mmu_client/retry_policy.h"

namespace mmud::client {

// Kind of a call, which decides its deadline.
enum class CallKind {
  kRead,      // looks something up
  kMutation,  // changes something small
  kHeavy,     // works through memory or page tables
  kStream,    // sends dirty logs or contents
};

// A value.
struct ClientOptions {
  absl::Duration read_deadline = absl::Seconds(10);
  absl::Duration mutation_deadline = absl::Seconds(30);
  absl::Duration heavy_deadline = absl::Minutes(5);
  absl::Duration stream_deadline = absl::Minutes(10);
  std::optional<absl::Duration> all_deadlines;  // instead of all of these

  RetryPolicy retry;

  // Waits between attempts. Tests use a fake.
  std::function<void(absl::Duration)> sleep = absl::SleepFor;

  absl::Duration DeadlineOf(CallKind kind) const {
    if (all_deadlines) return *all_deadlines;
    switch (kind) {
      case CallKind::kRead:
        return read_deadline;
      case CallKind::kMutation:
        return mutation_deadline;
      case CallKind::kHeavy:
        return heavy_deadline;
      case CallKind::kStream:
        return stream_deadline;
    }
    return read_deadline;
  }
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_CLIENT_OPTIONS_H_
