// Converts mmud.v1.PagesInFlight to the input of
// server/control/in_flight_ranges.h.

#ifndef SERVER_CONVERT_IN_FLIGHT_CONVERT_H_
#define SERVER_CONVERT_IN_FLIGHT_CONVERT_H_

#include "absl/status/statusor.h"
#include "mmud/v1/guest_memory_service.pb.h"
#include "server/control/in_flight_ranges.h"

namespace mmud {

// Converts the field `in_flight` of a request. INVALID_LOG_ID, and the errors
// of ToRange.
absl::StatusOr<PagesInFlight> ToPagesInFlight(const v1::PagesInFlight& proto);

}  // namespace mmud

#endif  // SERVER_CONVERT_IN_FLIGHT_CONVERT_H_
