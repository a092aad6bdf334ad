#include "server/rpc/open_connections.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/synchronization/mutex.h"

namespace mmud {

int64_t RaiseDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  if (limit.rlim_cur != limit.rlim_max) {
    const rlimit raised = {limit.rlim_max, limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  // Covers RLIM_INFINITY, too: nothing needs a higher limit.
  return static_cast<int64_t>(
      std::min<rlim_t>(limit.rlim_cur, rlim_t{1} << 20));
}

int64_t CountDescriptors() {
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return 0;
  int64_t count = -3;  // ".", ".." and the directory's own
  while (readdir(directory) != nullptr) ++count;
  closedir(directory);
  return count;
}

void OpenConnections::SetLimit(int64_t limit) {
  absl::MutexLock lock(&mu_);
  limit_ = std::max<int64_t>(limit, 1);
}

void OpenConnections::Add(int fd) {
  struct stat info;
  if (fstat(fd, &info) != 0) return;
  absl::MutexLock lock(&mu_);
  connections_.push_back({fd, info.st_dev, info.st_ino});
}

bool OpenConnections::full() {
  absl::MutexLock lock(&mu_);
  if (CountLocked() >= limit_) ForgetClosedLocked();
  return CountLocked() >= limit_;
}

BudgetUse OpenConnections::Use() const {
  BudgetUse use;
  use.name = "max_connections";
  absl::MutexLock lock(&mu_);
  ForgetClosedLocked();
  use.limit = limit_;
  use.used = CountLocked();
  return use;
}

void OpenConnections::ForgetClosedLocked() const {
  connections_.erase(std::remove_if(connections_.begin(), connections_.end(),
                                    [](const Connection& connection) {
                                      struct stat info;
                                      return fstat(connection.fd, &info) != 0 ||
                                             info.st_dev != connection.device ||
                                             info.st_ino != connection.inode;
                                    }),
                     connections_.end());
}

}  // namespace mmud
