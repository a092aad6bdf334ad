#include "server/base/owner_token.h"

#include <openssl/sha.h>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/log_owner.h"
#include "server/base/errors.h"

namespace mmud {

mmu::OwnerKey Sha256(absl::string_view bytes) {
  mmu::OwnerKey key;
  static_assert(sizeof(key.bytes) == SHA256_DIGEST_LENGTH);
  // Fails only if the library has no SHA-256, or no memory for its state.
  MMU_CHECK(SHA256(reinterpret_cast<const unsigned char*>(bytes.data()),
                   bytes.size(), key.bytes.data()) != nullptr);
  return key;
}

absl::StatusOr<mmu::OwnerKey> ToOwnerKey(absl::string_view token) {
  if (token.size() < kMinOwnerTokenBytes ||
      token.size() > kMaxOwnerTokenBytes) {
    return WrongValue(mmu::Reason::kInvalidOwnerToken, "owner_token",
                      absl::StrCat(token.size(), " bytes long"),
                      absl::StrCat(kMinOwnerTokenBytes, " to ",
                                   kMaxOwnerTokenBytes, " random bytes long"));
  }
  return Sha256(token);
}

}  // namespace mmud
