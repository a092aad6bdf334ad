// The secret token that identifies the owner of a dirty log.

#ifndef CLIENT_MMU_CLIENT_OWNER_TOKEN_H_
#define CLIENT_MMU_CLIENT_OWNER_TOKEN_H_

#include <cstddef>
#include <string>

namespace mmud::client {

// Size of the tokens that NewOwnerToken makes; the daemon accepts 16 to 64
// bytes.
inline constexpr size_t kOwnerTokenBytes = 32;

// Makes a new token of random bytes. Make it before StartDirtyLog or
// AcquireDirtyLog, so that a retry has the same token. Use it for one
// ownership: after a takeover the token is refused for good. Any process that
// has the token may take pages out of the log, so it must not be in a log line,
// report or argument list. Thread-safe.
std::string NewOwnerToken();

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_OWNER_TOKEN_H_
