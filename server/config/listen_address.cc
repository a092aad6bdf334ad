#include "server/config/listen_address.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "proto/mmud/v1/default_address.h"
#include "server/base/errors.h"

namespace mmud {
namespace {

struct SocketAddress {
  sockaddr_storage storage = {};
  socklen_t size = 0;
  const sockaddr* get() const {
    return reinterpret_cast<const sockaddr*>(&storage);
  }
};

SocketAddress ToSocketAddress(const ListenAddress& address) {
  SocketAddress result;
  const auto port = htons(static_cast<uint16_t>(address.port));
  if (address.is_v6) {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&result.storage);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = port;
    inet_pton(AF_INET6, address.host.c_str(), &v6->sin6_addr);
    result.size = sizeof(*v6);
  } else {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&result.storage);
    v4->sin_family = AF_INET;
    v4->sin_port = port;
    inet_pton(AF_INET, address.host.c_str(), &v4->sin_addr);
    result.size = sizeof(*v4);
  }
  return result;
}

bool IsServed(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  const bool connected =
      connect(fd, reinterpret_cast<const sockaddr*>(&address),
              sizeof(address)) == 0;
  // A full backlog means that a server listens, too.
  const bool busy = !connected && errno == EAGAIN;
  close(fd);
  return connected || busy;
}

absl::Status InUse(const std::string& path) {
  return absl::UnavailableError(
      absl::StrCat("another process serves unix:", path,
                   " already; stop it or choose another --listen"));
}

}  // namespace

std::string ListenAddress::ToString() const {
  return is_v6 ? absl::StrCat("[", host, "]:", port)
               : absl::StrCat(host, ":", port);
}

absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view option,
                                                 const std::string& text) {
  ListenAddress address;
  const size_t colon = text.rfind(':');
  bool valid = colon != std::string::npos;
  if (valid) {
    std::string host = text.substr(0, colon);
    if (host == "localhost") host = "127.0.0.1";
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
      host = host.substr(1, host.size() - 2);
      in6_addr parsed;
      address.is_v6 = true;
      valid = inet_pton(AF_INET6, host.c_str(), &parsed) == 1;
      address.is_loopback = valid && IN6_IS_ADDR_LOOPBACK(&parsed);
    } else {
      in_addr parsed;
      valid = inet_pton(AF_INET, host.c_str(), &parsed) == 1;
      address.is_loopback = valid && (ntohl(parsed.s_addr) >> 24) == 127;
    }
    address.host = host;
    valid = valid && absl::SimpleAtoi(text.substr(colon + 1), &address.port) &&
            address.port >= 0 && address.port <= 65535;
  }
  if (valid) return address;
  return absl::InvalidArgumentError(absl::StrCat(
      option, " is ", Quote(text),
      "; it must be HOST:PORT with a numeric host, for example 127.0.0.1:0"));
}

absl::StatusOr<int> ListenOnTcp(absl::string_view option,
                                ListenAddress* address) {
  SocketAddress where = ToSocketAddress(*address);
  const int fd = socket(where.get()->sa_family,
                        SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    return absl::UnavailableError(absl::StrCat(
        "cannot make a socket for --", option, ": ", std::strerror(errno)));
  }
  const int on = 1;
  // Allows binding while old connections are closing; a second listener is
  // still refused.
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  // Connections inherit it.
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (bind(fd, where.get(), where.size) != 0 || listen(fd, SOMAXCONN) != 0) {
    const int error = errno;
    close(fd);
    return absl::UnavailableError(absl::StrCat(
        "cannot listen on --", option, "=", address->ToString(), ": ",
        std::strerror(error),
        error == EADDRINUSE ? "; another process uses this port" : ""));
  }
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&where.storage),
                  &where.size) == 0) {
    // The port is at the same offset for both address families.
    address->port =
        ntohs(reinterpret_cast<const sockaddr_in*>(&where.storage)->sin_port);
  }
  return fd;
}

absl::StatusOr<int> ListenOnUnix(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  const mode_t before = umask(0117);
  const bool bound =
      fd >= 0 && bind(fd, reinterpret_cast<const sockaddr*>(&address),
                      sizeof(address)) == 0;
  umask(before);
  if (bound && listen(fd, SOMAXCONN) == 0) return fd;
  const int error = errno;
  if (fd >= 0) close(fd);
  return absl::UnavailableError(absl::StrCat(
      "cannot listen on --listen=unix:", path, ": ", std::strerror(error)));
}

UnixSocketPath::~UnixSocketPath() {
  if (!path_.empty()) unlink(path_.c_str());
  if (lock_fd_ >= 0) close(lock_fd_);
}

absl::Status UnixSocketPath::Claim(const std::string& path) {
  if (path.size() >= sizeof(sockaddr_un::sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "listen has a path of ", path.size(), " bytes; it may have ",
        sizeof(sockaddr_un::sun_path) - 1));
  }
  if (absl::StrCat("unix:", path) == v1::kDefaultAddress) {
    // If the folder is still missing, creating the lock file reports that.
    mkdir(path.substr(0, path.rfind('/')).c_str(), 0755);
  }
  const std::string lock = path + ".lock";
  lock_fd_ =
      open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock_fd_ < 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot make ", Quote(lock), ": ", std::strerror(errno),
                     "; make that folder, or choose another --listen"));
  }
  if (flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) return InUse(path);
  struct stat info;
  if (lstat(path.c_str(), &info) == 0) {
    if (!S_ISSOCK(info.st_mode)) {
      return absl::FailedPreconditionError(absl::StrCat(
          Quote(path), " exists and is no socket; choose another --listen"));
    }
    if (IsServed(path)) return InUse(path);
    if (unlink(path.c_str()) != 0) {
      return absl::UnavailableError(
          absl::StrCat("cannot remove the stale socket ", Quote(path), ": ",
                       std::strerror(errno)));
    }
  }
  path_ = path;
  return absl::OkStatus();
}

}  // namespace mmud
