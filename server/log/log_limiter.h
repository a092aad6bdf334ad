// Limits the log lines that clients cause.

#ifndef SERVER_LOG_LOG_LIMITER_H_
#define SERVER_LOG_LOG_LIMITER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "mmu_core/base/clock.h"

namespace mmud {

// Admits a burst of lines and then a number of lines per second. The limit
// holds for each key, so that one flood hides nothing else, and for all keys
// together, so that many floods do not fill the disk. Thread-safe.
class LogLimiter {
 public:
  struct Limits {
    double lines_per_second = 10;
    double burst = 100;
    double total_lines_per_second = 200;
    double total_burst = 1000;
    // Keys beyond this share one allowance.
    size_t max_keys = 1024;
  };

  // `clock` outlives this.
  LogLimiter(const Limits& limits, const mmu::Clock& clock)
      : limits_(limits), clock_(clock) {}

  // Whether a line of this key may be written now. If not, it counts as
  // dropped.
  bool Admit(absl::string_view key);

  // Number of lines dropped since the last call that did not return 0. Returns
  // 0 if less than a second has passed since that call, so that a flood of
  // lines does not cause a flood of reports.
  uint64_t TakeDropped();
  // TakeDropped without the pause of a second, for the daemon's end.
  uint64_t TakeDroppedNow();
  // Total number of dropped lines.
  uint64_t dropped() const;

 private:
  // An allowance of lines that refills with time.
  struct Bucket {
    double lines = 0;
    int64_t filled_nanos = 0;
  };

  Bucket& BucketOf(absl::string_view key, int64_t now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Limits limits_;
  const mmu::Clock& clock_;
  mutable absl::Mutex mu_;
  std::map<std::string, Bucket, std::less<>> buckets_ ABSL_GUARDED_BY(mu_);
  Bucket total_ ABSL_GUARDED_BY(mu_){.lines = limits_.total_burst};
  uint64_t dropped_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t reported_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t next_report_nanos_ ABSL_GUARDED_BY(mu_) = INT64_MIN;
};

}  // namespace mmud

#endif  // SERVER_LOG_LOG_LIMITER_H_
