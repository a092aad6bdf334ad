// Random UUIDs: the ids of requests, VMs, operations, workloads and daemons.

#ifndef SERVER_BASE_UUID_H_
#define SERVER_BASE_UUID_H_

#include <string>

#include "absl/strings/string_view.h"

namespace mmud {

// Returns a new UUID of version 4 from the system's randomness, in lower case,
// for example "6f9619ff-8b86-4d01-b42d-00cf4fc964ff". No two are the same, even
// across processes. Thread-safe.
std::string NewUuid();

// Whether `text` is a UUID of version 4 in its usual form, in lower or upper
// case.
bool IsUuid(absl::string_view text);

// The UUID in the daemon's spelling: the same UUID in upper case gives the same
// text.
std::string CanonicalUuid(absl::string_view uuid);

}  // namespace mmud

#endif  // SERVER_BASE_UUID_H_
