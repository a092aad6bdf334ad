// A socket for a server of a test.

#ifndef CLIENT_MMU_CLIENT_TEST_SOCKET_H_
#define CLIENT_MMU_CLIENT_TEST_SOCKET_H_

#include <random>
#include <string>

#include "absl/strings/str_format.h"

namespace mmud::client {

// Makes an address that no other test uses. A process id is not enough, since
// tests in different sandboxes may have the same id and share /tmp. The socket
// is not in the test's own folder, whose path may be too long for a socket.
inline std::string NewTestAddress() {
  std::random_device random;
  return absl::StrFormat("unix:/tmp/mmud_test.%08x%08x.sock", random(),
                         random());
}

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_TEST_SOCKET_H_
