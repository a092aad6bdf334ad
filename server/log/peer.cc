#include "server/log/peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/types/optional.h"
#include "server/log/logging.h"

namespace mmud {
namespace {

// The kernel's facts about the peer of a socket; nullopt if `fd` is not a
// socket.
absl::optional<LogFields> DescribeSocket(int fd) {
  sockaddr_storage peer = {};
  socklen_t size = sizeof(peer);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) {
    return absl::nullopt;
  }
  char text[INET6_ADDRSTRLEN] = {};
  switch (peer.ss_family) {
    case AF_UNIX: {
      ucred credentials = {};
      size = sizeof(credentials);
      if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
        return absl::nullopt;
      }
      return LogFields{{"uid", absl::StrCat(credentials.uid)},
                       {"pid", absl::StrCat(credentials.pid)}};
    }
    case AF_INET: {
      const auto& v4 = reinterpret_cast<const sockaddr_in&>(peer);
      inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
      return LogFields{
          {"address", absl::StrCat(text, ":", ntohs(v4.sin_port))}};
    }
    case AF_INET6: {
      const auto& v6 = reinterpret_cast<const sockaddr_in6&>(peer);
      inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
      return LogFields{
          {"address", absl::StrCat("[", text, "]:", ntohs(v6.sin6_port))}};
    }
    default:
      return absl::nullopt;
  }
}

}  // namespace

LogFields DescribePeer(absl::string_view grpc_peer) {
  absl::string_view number = grpc_peer;
  int fd = -1;
  if (absl::ConsumePrefix(&number, "fd:") && absl::SimpleAtoi(number, &fd)) {
    if (absl::optional<LogFields> peer = DescribeSocket(fd); peer.has_value()) {
      return *peer;
    }
  }
  absl::string_view address = grpc_peer;
  if (!absl::ConsumePrefix(&address, "ipv4:")) {
    absl::ConsumePrefix(&address, "ipv6:");
  }
  return {
      {"address", absl::StrReplaceAll(address, {{"%5B", "["}, {"%5D", "]"}})}};
}

}  // namespace mmud
