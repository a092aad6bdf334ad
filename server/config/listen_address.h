// Addresses to listen on, and whether somebody else listens there already.

#ifndef SERVER_CONFIG_LISTEN_ADDRESS_H_
#define SERVER_CONFIG_LISTEN_ADDRESS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace mmud {

// A numeric address and a port. A value.
struct ListenAddress {
  std::string host;  // 127.0.0.1 or ::1, without brackets
  int port = 0;
  bool is_loopback = false;
  bool is_v6 = false;

  std::string ToString() const;  // 127.0.0.1:80, [::1]:80
};

// HOST:PORT. INVALID_ARGUMENT naming `option`, value and rule.
absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view option,
                                                 const std::string& text);

// A socket that listens and does not block; the caller closes it. Port 0
// becomes the one that was taken. UNAVAILABLE, naming `option`.
absl::StatusOr<int> ListenOnTcp(absl::string_view option,
                                ListenAddress* address);

// The same on a path that was claimed. The file has mode 0660 from its first
// moment on.
absl::StatusOr<int> ListenOnUnix(const std::string& path);

// Makes the path of a Unix socket free: a socket file that nobody serves any
// more is removed. UNAVAILABLE if somebody serves it, FAILED_PRECONDITION if
// it is something else than a socket, INVALID_ARGUMENT if it is too long. The
// folder of the default address, which is no other program's, is made if it is
// missing.
//
// The lock file PATH.lock is held from then on to the end of the process, also
// after a kill, so that of two daemons that start at the same time one fails.
class UnixSocketPath {
 public:
  UnixSocketPath() = default;
  UnixSocketPath(const UnixSocketPath&) = delete;
  UnixSocketPath& operator=(const UnixSocketPath&) = delete;
  // Removes the socket file, if Claim was OK.
  ~UnixSocketPath();

  // Call once.
  absl::Status Claim(const std::string& path);

 private:
  std::string path_;
  int lock_fd_ = -1;
};

}  // namespace mmud

#endif  // SERVER_CONFIG_LISTEN_ADDRESS_H_
