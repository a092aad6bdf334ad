// Keeps two commands of a person from using one owner token at the same time.
//
// The daemon cannot tell them apart: pages that one of them takes into flight
// would be acknowledged by the other.

#ifndef CLIENT_MMUCTL_OWNER_LOCK_H_
#define CLIENT_MMUCTL_OWNER_LOCK_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace mmud::client {

// A lock file that exists as long as this object. A process that ends without
// destroying it leaves the file, and nobody is kept out by that.
// Thread-compatible; not to be copied.
class OwnerLock {
 public:
  // Waits until nobody holds the lock at `path`, but no longer than `wait`,
  // then ABORTED. FAILED_PRECONDITION if the file may not be written, or is a
  // symlink; INTERNAL if the system fails.
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
