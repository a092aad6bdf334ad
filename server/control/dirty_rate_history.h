// The rate at which a VM dirtied pages, computed from existing counters.

#ifndef SERVER_CONTROL_DIRTY_RATE_HISTORY_H_
#define SERVER_CONTROL_DIRTY_RATE_HISTORY_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"

namespace mmud {

// The counts up to one time. A value.
struct DirtyCounts {
  uint64_t dirty_pages = 0;   // clean -> dirty transitions
  uint64_t write_faults = 0;  // faults caused by the dirty log
  // Time stalled because a ring was full; a stall in progress counts up to now.
  int64_t ring_full_nanos = 0;
};

// The counters at one time. A value.
struct DirtySample {
  mmu::MonotonicTime time;
  DirtyCounts vm;
  std::vector<DirtyCounts> vcpus;  // by index; their number never changes
};

// A value.
struct DirtyRates {
  double pages_per_second = 0;
  double write_faults_per_second = 0;
  double ring_full_ratio = 0;  // share of the time of all its vCPUs
};

// A value.
struct DirtyRateResult {
  absl::Duration observed;
  DirtyRates vm;
  std::vector<DirtyRates> vcpus;  // by index
};

// A ring of samples; another object adds one each second. Thread-safe.
class DirtyRateHistory {
 public:
  // The longest window that can be requested, and the number of samples that it
  // needs.
  static constexpr absl::Duration kLongest = absl::Minutes(10);

  // Drops a sample that is not later than the last one.
  void Add(const DirtySample& sample);
  // Drops all samples and begins with `sample`, because the log was switched
  // on.
  void Restart(const DirtySample& sample);

  // The rate between the newest sample at least `window` before `now`, and
  // `now`. FAILED_PRECONDITION INSUFFICIENT_HISTORY with the time to wait.
  absl::StatusOr<DirtyRateResult> Rate(const DirtySample& now,
                                       absl::Duration window) const;

 private:
  mutable absl::Mutex mu_;
  std::deque<DirtySample> samples_ ABSL_GUARDED_BY(mu_);  // oldest first
};

}  // namespace mmud

#endif  // SERVER_CONTROL_DIRTY_RATE_HISTORY_H_
