// Writes to a file descriptor, for files that must be written completely.

#ifndef CLIENT_TEXT_WRITE_ALL_H_
#define CLIENT_TEXT_WRITE_ALL_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace mmud::client {

// Returns whether everything was written; errno has the cause if not.
bool WriteAll(int fd, absl::string_view contents);

// DATA_LOSS that names the file, and the cause from errno.
absl::Status CannotWrite(const std::string& path);

}  // namespace mmud::client

#endif  // CLIENT_TEXT_WRITE_ALL_H_
