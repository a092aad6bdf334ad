// The secret that identifies the owner of a dirty log.
//
// The owner of a log makes up its token; a call with that token may change the
// log. The daemon hashes the token once, when the call comes in, and from then
// on identifies the owner by the hash: no answer, operation, log line or
// remembered request contains a token.

#ifndef SERVER_BASE_OWNER_TOKEN_H_
#define SERVER_BASE_OWNER_TOKEN_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "mmu_core/dirty/log_owner.h"

namespace mmud {

inline constexpr size_t kMinOwnerTokenBytes = 16;
inline constexpr size_t kMaxOwnerTokenBytes = 64;

// SHA-256 of `bytes`.
mmu::OwnerKey Sha256(absl::string_view bytes);

// The key of the caller that sent `token` in the field `owner_token`.
// INVALID_OWNER_TOKEN if its length is wrong; the error tells nothing of the
// token but its length.
absl::StatusOr<mmu::OwnerKey> ToOwnerKey(absl::string_view token);

}  // namespace mmud

#endif  // SERVER_BASE_OWNER_TOKEN_H_
