// Addresses to listen on, and the check that no other process listens there.

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

// Parses HOST:PORT. INVALID_ARGUMENT naming `option`, value and rule.
absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view option,
                                                 const std::string& text);

// Opens a socket that listens and does not block; the caller closes it. Port 0
// is replaced by the port that was chosen. UNAVAILABLE, naming `option`.
absl::StatusOr<int> ListenOnTcp(absl::string_view option,
                                ListenAddress* address);

// Opens such a socket on a path that was claimed. The file has mode 0660 from
// its first moment on.
absl::StatusOr<int> ListenOnUnix(const std::string& path);

// Makes the path of a Unix socket free: a socket file without a listener is
// removed. UNAVAILABLE if a process listens on it, FAILED_PRECONDITION if it is
// not a socket, INVALID_ARGUMENT if the path is too long. The folder of the
// default address, which belongs to this program alone, is created if it is
// missing.
//
// The lock file PATH.lock is held from then on to the end of the process, even
// if the process is killed, so that of two daemons that start at the same time
// one fails.
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
