// Converts between mmud.v1's messages about the rate of dirty pages and the
// values of server/control/dirty_rate_history.h.

#ifndef SERVER_CONVERT_DIRTY_RATE_CONVERT_H_
#define SERVER_CONVERT_DIRTY_RATE_CONVERT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/repeated_field.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/control/dirty_rate_history.h"

namespace mmud {

// Reads a request's `windows`. INVALID_WINDOW.
absl::StatusOr<std::vector<absl::Duration>> ToWindows(
    const google::protobuf::RepeatedPtrField<google::protobuf::Duration>&
        windows);

// Whether the rate of each vCPU is shown as well.
enum class VcpuRates : uint8_t { kLeaveOut, kShow };

v1::DirtyRate ToProto(absl::Duration window, const DirtyRateResult& rate,
                      VcpuRates vcpus);

}  // namespace mmud

#endif  // SERVER_CONVERT_DIRTY_RATE_CONVERT_H_
