// Replaces a file as a whole.

#ifndef CLIENT_TEXT_REPLACE_FILE_H_
#define CLIENT_TEXT_REPLACE_FILE_H_

#include <string>

#include "absl/status/status.h"

namespace mmud::client {

// Writes a new file beside `path` and renames it to `path`. So a reader finds
// the former contents or the new ones, and after an error the former ones. A
// symlink stays; the file that it leads to is replaced. What is no regular
// file, for example a device, is written in its place. DATA_LOSS, with the
// cause, if not everything can be written.
absl::Status ReplaceFile(const std::string& path, const std::string& contents);

// INVALID_ARGUMENT if ReplaceFile will fail: the folder does not exist or
// cannot be written, or `path` is a folder.
absl::Status CheckReplaceable(const std::string& path);

}  // namespace mmud::client

#endif  // CLIENT_TEXT_REPLACE_FILE_H_
