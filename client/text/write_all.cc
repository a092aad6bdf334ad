#include "client/text/write_all.h"

#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace mmud::client {

bool WriteAll(int fd, absl::string_view contents) {
  size_t at = 0;
  while (at < contents.size()) {
    const ssize_t count = write(fd, contents.data() + at, contents.size() - at);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    at += static_cast<size_t>(count);
  }
  return true;
}

absl::Status CannotWrite(const std::string& path) {
  return absl::DataLossError(
      absl::StrCat("'", path, "' cannot be written: ", std::strerror(errno),
                   "; name a file on a disk with room for it"));
}

}  // namespace mmud::client
