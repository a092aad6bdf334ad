// The secret by which the owner of a dirty log is known.

#ifndef CLIENT_MMU_CLIENT_OWNER_TOKEN_H_
#define CLIENT_MMU_CLIENT_OWNER_TOKEN_H_

#include <cstddef>
#include <string>

namespace mmud::client {

// Bytes of a token that is made here; the daemon takes 16 to 64.
inline constexpr size_t kOwnerTokenBytes = 32;

// A new token of random bytes. To be made before StartDirtyLog or
// AcquireDirtyLog, so that a retry has the same one, and for one ownership: a
// token whose log was taken over is refused for good. Whoever has it may take
// pages out of the log: it belongs into no log line, report or argument list.
// Thread-safe.
std::string NewOwnerToken();

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_OWNER_TOKEN_H_
