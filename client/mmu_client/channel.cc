#include "client/mmu_client/channel.h"

#include <sys/un.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "grpcpp/channel.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"

namespace mmud::client {
namespace {

// The terminating 0 takes one byte of sun_path.
constexpr size_t kMaxUnixPathLength = sizeof(sockaddr_un::sun_path) - 1;

}  // namespace

absl::StatusOr<std::string> ParseAddress(absl::string_view address) {
  const auto error = [address](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("address '", address, "' ", why,
                     "; give unix:/path/of/socket or host:port"));
  };
  if (address.empty()) return error("is empty");
  const bool is_path = address[0] == '/' || address[0] == '.';
  if (is_path || absl::StartsWith(address, "unix:")) {
    const absl::string_view path = absl::StripPrefix(address, "unix:");
    if (path.empty()) return error("has no path");
    if (path.size() > kMaxUnixPathLength) {
      return error(absl::StrCat("has a path of ", path.size(),
                                " bytes, more than the ", kMaxUnixPathLength,
                                " of a socket's name"));
    }
    return absl::StrCat("unix:", path);
  }
  const size_t colon = address.rfind(':');
  uint32_t port = 0;
  if (colon == absl::string_view::npos || colon == 0) {
    return error("has no host or no port");
  }
  if (!absl::SimpleAtoi(address.substr(colon + 1), &port) || port == 0 ||
      port > 65535) {
    return error("has no port from 1 to 65535");
  }
  return absl::StrCat("dns:", address);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(
    absl::string_view address) {
  absl::StatusOr<std::string> target = ParseAddress(address);
  if (!target.ok()) return target.status();
  grpc::ChannelArguments arguments;
  // The longest message is a chunk of 1 MiB; leave room for unary answers
  // with bitmaps in them.
  arguments.SetMaxReceiveMessageSize(16 << 20);
  // Try again soon when a daemon is just starting.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // Retrying is Caller's job; gRPC must not do it a second time.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // The keepalive ends calls without a deadline if the peer is gone. The daemon
  // allows a ping every 5 s.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // A local socket needs no proxy.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(*target, grpc::InsecureChannelCredentials(),
                                   arguments);
}

}  // namespace mmud::client
