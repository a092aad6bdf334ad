// When an operation began and ended, for its metadata.

#ifndef SERVER_CONVERT_OPERATION_TIMES_H_
#define SERVER_CONVERT_OPERATION_TIMES_H_

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "server/base/wall_time.h"
#include "server/convert/convert.h"

namespace mmud {

// Begins when it is made. One look at the wall clock says when that was, for
// people; the end is as much later as it took by the monotonic clock, so that
// the difference is true though the wall clock was set meanwhile. Thread-safe.
class OperationTimes {
 public:
  // The work is over. Call once.
  void End() {
    // Relaxed: the one number is all that its readers need.
    took_nanos_.store(absl::ToInt64Nanoseconds(SinceBegin()),
                      std::memory_order_relaxed);
  }

  // Sets start_time and running_time, and end_time if it has ended.
  template <typename Metadata>
  void AddTo(Metadata* metadata) const {
    *metadata->mutable_start_time() = ToProto(start_);
    const int64_t took = took_nanos_.load(std::memory_order_relaxed);
    *metadata->mutable_running_time() =
        ToProto(took < 0 ? SinceBegin() : absl::Nanoseconds(took));
    if (took >= 0) {
      *metadata->mutable_end_time() =
          ToProto(start_.Later(absl::Nanoseconds(took)));
    }
  }

 private:
  absl::Duration SinceBegin() const {
    return mmu::MonotonicTime::Now() - begin_;
  }

  const WallTime start_ = WallTime::Now();
  const mmu::MonotonicTime begin_ = mmu::MonotonicTime::Now();
  std::atomic<int64_t> took_nanos_ = -1;  // -1: it goes on
};

}  // namespace mmud

#endif  // SERVER_CONVERT_OPERATION_TIMES_H_
