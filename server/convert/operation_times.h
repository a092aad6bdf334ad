// The times of an operation's beginning and end, for its metadata.

#ifndef SERVER_CONVERT_OPERATION_TIMES_H_
#define SERVER_CONVERT_OPERATION_TIMES_H_

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "server/base/wall_time.h"
#include "server/convert/convert.h"

namespace mmud {

// Begins on construction. The wall clock is read once, for a start time that
// people can read. The end is the start plus the duration by the monotonic
// clock, so that their difference is true even if the wall clock is set
// meanwhile. Thread-safe.
class OperationTimes {
 public:
  // Marks the end of the work. Called once.
  void End() {
    // Relaxed order is enough: readers need only this one number.
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
  std::atomic<int64_t> took_nanos_ = -1;  // -1: still running
};

}  // namespace mmud

#endif  // SERVER_CONVERT_OPERATION_TIMES_H_
