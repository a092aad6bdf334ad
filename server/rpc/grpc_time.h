// Converts between mmu's times and gRPC's: deadlines use the monotonic clock,
// which does not move when the time of day is set. For the client, the tests
// and the daemon.

#ifndef SERVER_RPC_GRPC_TIME_H_
#define SERVER_RPC_GRPC_TIME_H_

#include <cstdint>

#include "absl/time/time.h"
#include "grpc/support/time.h"
#include "mmu_core/base/clock.h"

namespace mmud {

// gRPC's monotonic clock is the system's, as is mmu's. A time that is too late
// for gRPC becomes its infinite future.
inline gpr_timespec ToGrpcTime(mmu::MonotonicTime time) {
  const int64_t nanos = absl::ToInt64Nanoseconds(time - mmu::MonotonicTime());
  gpr_timespec result = gpr_time_from_nanos(nanos, GPR_TIMESPAN);
  result.clock_type = GPR_CLOCK_MONOTONIC;
  return result;
}

// InfiniteFuture if no deadline was set.
inline mmu::MonotonicTime FromGrpcTime(gpr_timespec time) {
  const gpr_timespec monotonic =
      gpr_convert_clock_type(time, GPR_CLOCK_MONOTONIC);
  if (gpr_time_cmp(monotonic, gpr_inf_future(GPR_CLOCK_MONOTONIC)) == 0) {
    return mmu::MonotonicTime::InfiniteFuture();
  }
  return mmu::MonotonicTime() + absl::Seconds(monotonic.tv_sec) +
         absl::Nanoseconds(monotonic.tv_nsec);
}

}  // namespace mmud

#endif  // SERVER_RPC_GRPC_TIME_H_
