// Keeps two commands of one user from using the same owner token at the same
// time.
//
// The daemon cannot distinguish them: one command would acknowledge pages that
// the other one has taken into flight.

#ifndef CLIENT_MMUCTL_OWNER_LOCK_H_
#define CLIENT_MMUCTL_OWNER_LOCK_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace mmud::client {

// A lock file that exists as long as this object. If a process ends without
// destroying the object, the file remains, but other processes can take the
// lock. Thread-compatible; not copyable.
class OwnerLock {
 public:
  // Waits until the lock at `path` is free. ABORTED after `wait`.
  // FAILED_PRECONDITION if the file may not be written, or is a symlink;
  // INTERNAL if the system fails.
  static absl::StatusOr<OwnerLock> Take(const std::string& path,
                                        absl::Duration wait);
  ~OwnerLock();
  OwnerLock(OwnerLock&& other) noexcept;
  OwnerLock& operator=(OwnerLock&&) = delete;

 private:
  OwnerLock(std::string path, int descriptor);

  std::string path_;
  int descriptor_;  // negative once moved from
};

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_OWNER_LOCK_H_
