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

// `address` in the form that gRPC knows: "unix:/run/mmud.sock" (also as a bare
// path that begins with '/' or '.'), "host:port" or "[::1]:port".
// INVALID_ARGUMENT when it is none of these.
absl::StatusOr<std::string> ParseAddress(absl::string_view address);

// A channel to `address`, which is in any form that ParseAddress takes. It
// connects with the first call, so a daemon that is not there shows up then.
absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(
    absl::string_view address);

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_CHANNEL_H_
