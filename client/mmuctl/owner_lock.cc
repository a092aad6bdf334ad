#include "client/mmuctl/owner_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"

namespace mmud::client {
namespace {

constexpr absl::Duration kInterval = absl::Milliseconds(20);

absl::Status Failed(const std::string& path) {
  const int error = errno;
  if (error == ELOOP) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is a symlink, which is not followed; delete it"));
  }
  const std::string message =
      absl::StrCat("cannot lock ", path, ": ", std::strerror(error));
  if (error == EACCES || error == EPERM || error == EROFS) {
    return absl::FailedPreconditionError(
        absl::StrCat(message,
                     "; make the folder writable for you, or set "
                     "XDG_RUNTIME_DIR to a folder that is"));
  }
  if (error == ENOSPC || error == EDQUOT) {
    return absl::FailedPreconditionError(
        absl::StrCat(message,
                     "; free some space there, or set XDG_RUNTIME_DIR to a "
                     "folder of yours that has some"));
  }
  return absl::InternalError(message);
}

// Returns whether `path` still names the open file. The former holder may have
// removed the file before this process locked it, and another process may have
// made a new one. Only a lock of the file at `path` keeps others out.
bool IsStillAt(const std::string& path, int descriptor) {
  struct stat locked = {};
  struct stat present = {};
  return fstat(descriptor, &locked) == 0 &&
         lstat(path.c_str(), &present) == 0 &&
         locked.st_dev == present.st_dev && locked.st_ino == present.st_ino;
}

}  // namespace

absl::StatusOr<OwnerLock> OwnerLock::Take(const std::string& path,
                                          absl::Duration wait) {
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  while (true) {
    const int descriptor =
        open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC,
             S_IRUSR | S_IWUSR);
    if (descriptor < 0) return Failed(path);
    OwnerLock lock(path, descriptor);
    const bool locked = flock(descriptor, LOCK_EX | LOCK_NB) == 0;
    if (locked && IsStillAt(path, descriptor)) return lock;
    const int error = locked ? EWOULDBLOCK : errno;
    // Another process may hold the file, so close it without removing it.
    close(std::exchange(lock.descriptor_, -1));
    if (error != EWOULDBLOCK && error != EINTR) {
      errno = error;
      return Failed(path);
    }
    if (mmu::MonotonicTime::Now() - start >= wait) {
      return absl::AbortedError(
          absl::StrCat("another mmuctl is using this owner token, and holds ",
                       path, "; try again when it has ended"));
    }
    absl::SleepFor(kInterval);
  }
}

OwnerLock::OwnerLock(std::string path, int descriptor)
    : path_(std::move(path)), descriptor_(descriptor) {}

OwnerLock::OwnerLock(OwnerLock&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

OwnerLock::~OwnerLock() {
  if (descriptor_ < 0) return;
  // Remove the file while it is locked, so that no other process's file is
  // removed.
  unlink(path_.c_str());
  close(descriptor_);
}

}  // namespace mmud::client
