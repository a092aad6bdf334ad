#include "client/top/times.h"

#include <string>

#include "absl/time/time.h"
#include "server/base/wall_time.h"

namespace mmud::client {

std::string TimeOfDay(WallTime time) {
  return absl::FormatTime("%H:%M:%S", absl::FromUnixNanos(time.unix_nanos()),
                          absl::UTCTimeZone());
}

}  // namespace mmud::client
