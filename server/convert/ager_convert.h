// Converts the settings and the state of agers.

#ifndef SERVER_CONVERT_AGER_CONVERT_H_
#define SERVER_CONVERT_AGER_CONVERT_H_

#include <string>

#include "absl/status/status.h"
#include "mmud/v1/aging_service.pb.h"
#include "server/control/ager.h"

namespace mmud {

// Changes what `proto` sets. After an error `settings` may be changed in part.
// INVALID_THROTTLE, INVALID_DURATION, INVALID_ENUM_VALUE.
absl::Status Change(const v1::AgerSettings& proto, AgerSettings* settings);

// The same for the same settings.
std::string EtagOf(const AgerSettings& settings);

// Everything but the VM's names.
v1::Ager ToProto(const AgerState& state);

}  // namespace mmud

#endif  // SERVER_CONVERT_AGER_CONVERT_H_
