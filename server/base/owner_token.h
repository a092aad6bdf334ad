// The secret by which the owner of a dirty log is known.
//
// Whoever owns a log makes its token up; a call that carries it may change the
// log. The daemon looks at the token once, when the call comes in, and knows
// the owner by the hash from then on: no answer, operation, log line or
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

// SHA-256 of any bytes.
mmu::OwnerKey Sha256(absl::string_view bytes);

// The key of whoever sent `token` in the field `owner_token`.
// INVALID_OWNER_TOKEN by its length, which is all that the error tells of it.
absl::StatusOr<mmu::OwnerKey> ToOwnerKey(absl::string_view token);

}  // namespace mmud

#endif  // SERVER_BASE_OWNER_TOKEN_H_
