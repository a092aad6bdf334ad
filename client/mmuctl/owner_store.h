// Stores a user's owner tokens of dirty logs between two commands.
//
// One file per daemon address and VM, in $XDG_RUNTIME_DIR/mmuctl, or in
// ~/.cache/mmuctl if the former cannot be made. All spellings of a socket's
// path are one address. Directory and file are readable by their owner only. A
// file that others can read or write, or a symlink, is refused, since its token
// may no longer be secret. A file is always replaced as a whole.

#ifndef CLIENT_MMUCTL_OWNER_STORE_H_
#define CLIENT_MMUCTL_OWNER_STORE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/mmuctl/owner_lock.h"

namespace mmud::client {

// The stored data of one log. A value.
struct StoredOwner {
  std::string log_id;  // "" until the daemon has returned it
  std::string owner;   // the name for people
  std::string token;
};

// Thread-compatible. Errors name the file and the fix: FAILED_PRECONDITION for
// wrong permissions, an unreadable file or a full file system, DATA_LOSS for
// one that is none of these, INTERNAL if the system fails.
class OwnerStore {
 public:
  // A store in the folder that the environment names; makes the folder.
  // FAILED_PRECONDITION with both reasons if the folder can be made neither in
  // XDG_RUNTIME_DIR nor in HOME. Command lines of a fix begin with `mmuctl`.
  static absl::StatusOr<OwnerStore> FromEnvironment(
      const std::string& mmuctl = "mmuctl");
  // All stores that FromEnvironment may have chosen with this environment.
  // Makes no folder.
  static std::vector<OwnerStore> AllOfEnvironment();
  explicit OwnerStore(std::string directory, std::string mmuctl = "mmuctl");

  // The log of this VM of the daemon at `address`; nothing if none is stored.
  absl::StatusOr<std::optional<StoredOwner>> Load(absl::string_view address,
                                                  absl::string_view vm) const;
  absl::Status Save(absl::string_view address, absl::string_view vm,
                    const StoredOwner& owner) const;
  // OK if there is none.
  absl::Status Remove(absl::string_view address, absl::string_view vm) const;

  // The same for a candidate, a token that may become the owner's. It is stored
  // beside the present one until the daemon has answered, so it is not lost
  // with an answer.
  absl::StatusOr<std::optional<StoredOwner>> LoadCandidate(
      absl::string_view address, absl::string_view vm) const;
  absl::Status SaveCandidate(absl::string_view address, absl::string_view vm,
                             const StoredOwner& owner) const;
  absl::Status RemoveCandidate(absl::string_view address,
                               absl::string_view vm) const;

  // Whether a token or a candidate is stored, usable or not. Makes no folder.
  bool Has(absl::string_view address, absl::string_view vm) const;

  // Locks the tokens of this VM against other commands of this user, see
  // owner_lock.h. ABORTED if another command uses them and does not end soon.
  absl::StatusOr<OwnerLock> Lock(absl::string_view address,
                                 absl::string_view vm) const;

  // Path of the file for this VM's log, for messages. The path is always within
  // the folder, for any name.
  std::string PathOf(absl::string_view address, absl::string_view vm) const;

 private:
  std::string CandidatePathOf(absl::string_view address,
                              absl::string_view vm) const;
  absl::StatusOr<std::optional<StoredOwner>> LoadFile(
      const std::string& path, absl::string_view address,
      absl::string_view vm) const;
  absl::Status SaveFile(const std::string& path, absl::string_view address,
                        absl::string_view vm, const StoredOwner& owner) const;
  // Makes the directory if it does not exist.
  absl::Status CheckDirectory() const;

  std::string directory_;
  std::string mmuctl_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_OWNER_STORE_H_
