// How much of what clients cause goes into the log.

#ifndef SERVER_LOG_LOG_LIMITER_H_
#define SERVER_LOG_LOG_LIMITER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "mmu_core/base/clock.h"

namespace mmud {

// Admits a burst of lines and then so many a second: of each key, so that one
// flood hides nothing else, and of all together, so that many floods do not
// fill the disk. Thread-safe.
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

  // Whether a line of this key may be written now; if not, it counts as
  // dropped.
  bool Admit(absl::string_view key);

  // Lines dropped since the last call of this that did not return 0. 0 if less
  // than a second has passed since that, so that a flood is not answered by
  // one of reports.
  uint64_t TakeDropped();
  // The same without a pause, for the end.
  uint64_t TakeDroppedNow();
  // All that were ever dropped.
  uint64_t dropped() const;

 private:
  // An allowance that fills up with time.
  struct Bucket {
    double lines = 0;
    int64_t filled_nanos = 0;
  };

  Bucket& BucketOf(absl::string_view key, int64_t now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Limits limits_;
  const mmu::Clock& clock_;
  mutable absl::Mutex mu_;
  absl::flat_hash_map<std::string, Bucket> buckets_ ABSL_GUARDED_BY(mu_);
  Bucket total_ ABSL_GUARDED_BY(mu_){.lines = limits_.total_burst};
  uint64_t dropped_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t reported_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t next_report_nanos_ ABSL_GUARDED_BY(mu_) = INT64_MIN;
};

}  // namespace mmud

#endif  // SERVER_LOG_LOG_LIMITER_H_
