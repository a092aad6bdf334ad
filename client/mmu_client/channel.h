// The connection to a daemon.

#ifndef CLIENT_MMU_CLIENT_CHANNEL_H_
#define CLIENT_MMU_CLIENT_CHANNEL_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace grpc {
class Channel;
}

namespace mmud::client {

// Converts `address` to gRPC's form. `address` is "unix:/run/mmud.sock" (or
// only a path that begins with '/' or '.'), "host:port" or "[::1]:port".
// INVALID_ARGUMENT if it is none of these.
absl::StatusOr<std::string> ParseAddress(absl::string_view address);

// Makes a channel to `address`, in any form that ParseAddress takes. It
// connects with the first call, so a missing daemon is an error of that call.
absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(
    absl::string_view address);

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_CHANNEL_H_
