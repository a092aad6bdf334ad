// When an operation began and ended, for its metadata.

#ifndef SERVER_SERVICES_OPERATION_TIMES_H_
#define SERVER_SERVICES_OPERATION_TIMES_H_

#include <atomic>
#include <cstdint>

#include "server/base/wall_time.h"
#include "server/services/convert.h"

namespace mmud {

// Times for people, of the wall clock. Begins when it is made. Thread-safe.
class OperationTimes {
 public:
  // The work is over. Call once.
  void End() {
    // Relaxed: the one number is all that its readers need.
    end_nanos_.store(WallTime::Now().unix_nanos(), std::memory_order_relaxed);
  }

  // Sets start_time, and end_time if it has ended.
  template <typename Metadata>
  void AddTo(Metadata* metadata) const {
    *metadata->mutable_start_time() = ToProto(start_);
    const int64_t end = end_nanos_.load(std::memory_order_relaxed);
    if (end != 0) {
      *metadata->mutable_end_time() = ToProto(WallTime::FromUnixNanos(end));
    }
  }

 private:
  const WallTime start_ = WallTime::Now();
  std::atomic<int64_t> end_nanos_ = 0;  // 0: it goes on
};

}  // namespace mmud

#endif  // SERVER_SERVICES_OPERATION_TIMES_H_
