// Keeps a person's owner tokens of dirty logs between two commands.
//
// One file per daemon address and VM, in $XDG_RUNTIME_DIR/mmuctl, or where that
// cannot be made in ~/.cache/mmuctl. All spellings of a socket's path are one
// address. Directory and file are readable by their owner only; what others can
// read or write, or a symlink, is refused, since a token that somebody else may
// have is no secret any more. A file is replaced as a whole.

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

// What is kept of one log. A value.
struct StoredOwner {
  std::string log_id;  // "" until the daemon has said it
  std::string owner;   // the name for people
  std::string token;
};

// Thread-compatible. Errors name the file and the fix: FAILED_PRECONDITION for
// wrong permissions, an unreadable file or a full file system, DATA_LOSS for
// one that is none of these, INTERNAL if the system fails.
class OwnerStore {
 public:
  // In the folder that the environment names, which is made.
  // FAILED_PRECONDITION with both reasons if it cannot be made where
  // XDG_RUNTIME_DIR says nor where HOME says. `mmuctl` begins the command lines
  // of a fix.
  static absl::StatusOr<OwnerStore> FromEnvironment(
      const std::string& mmuctl = "mmuctl");
  // All that FromEnvironment may ever have chosen with this environment. Makes
  // nothing.
  static std::vector<OwnerStore> AllOfEnvironment();
  explicit OwnerStore(std::string directory, std::string mmuctl = "mmuctl");

  // The log of this VM of the daemon at `address`; nothing if none is kept.
  absl::StatusOr<std::optional<StoredOwner>> Load(absl::string_view address,
                                                  absl::string_view vm) const;
  absl::Status Save(absl::string_view address, absl::string_view vm,
                    const StoredOwner& owner) const;
  // OK if there is none.
  absl::Status Remove(absl::string_view address, absl::string_view vm) const;

  // The same for a token that is about to become the owner's: kept beside the
  // present one until the daemon has answered, so that no answer that is lost
  // takes the token along.
  absl::StatusOr<std::optional<StoredOwner>> LoadCandidate(
      absl::string_view address, absl::string_view vm) const;
  absl::Status SaveCandidate(absl::string_view address, absl::string_view vm,
                             const StoredOwner& owner) const;
  absl::Status RemoveCandidate(absl::string_view address,
                               absl::string_view vm) const;

  // Whether a token or a candidate is kept, fit to be used or not. Makes
  // nothing.
  bool Has(absl::string_view address, absl::string_view vm) const;

  // Keeps other commands of this person from using the tokens of this VM, see
  // owner_lock.h. ABORTED if one does and does not end soon.
  absl::StatusOr<OwnerLock> Lock(absl::string_view address,
                                 absl::string_view vm) const;

  // Where the log of this VM is kept, for messages. Within the folder, whatever
  // the name is.
  std::string PathOf(absl::string_view address, absl::string_view vm) const;

 private:
  std::string CandidatePathOf(absl::string_view address,
                              absl::string_view vm) const;
  absl::StatusOr<std::optional<StoredOwner>> LoadFile(
      const std::string& path, absl::string_view address,
      absl::string_view vm) const;
  absl::Status SaveFile(const std::string& path, absl::string_view address,
                        absl::string_view vm, const StoredOwner& owner) const;
  // Makes the directory if it is not there.
  absl::Status CheckDirectory() const;

  std::string directory_;
  std::string mmuctl_;
};

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_OWNER_STORE_H_
