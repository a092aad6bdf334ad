// Converts durations and times between the API and Abseil.

#ifndef CLIENT_MMU_CLIENT_TIME_CONVERSION_H_
#define CLIENT_MMU_CLIENT_TIME_CONVERSION_H_

#include <cstdint>

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include "server/base/wall_time.h"

namespace mmud::client {

inline absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) +
         absl::Nanoseconds(duration.nanos());
}

inline WallTime FromProto(const google::protobuf::Timestamp& time) {
  return WallTime::FromUnixNanos(absl::ToUnixNanos(
      absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos())));
}

// REQUIRES: `duration` is finite.
inline google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration proto;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
  return proto;
}

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_TIME_CONVERSION_H_
