#include "client/comparison/report_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace mmud::client {

absl::StatusOr<std::unique_ptr<ReportFile>> ReportFile::Open(
    const std::string& path) {
  constexpr int kFlags = O_WRONLY | O_CLOEXEC;
  // Tells a new file from one that was there.
  Made made = Made::kYes;
  int fd = open(path.c_str(), kFlags | O_CREAT | O_EXCL, 0666);
  if (fd < 0 && errno == EEXIST) {
    made = Made::kNo;
    fd = open(path.c_str(), kFlags);
  }
  if (fd < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' cannot be written: ", std::strerror(errno)));
  }
  return absl::WrapUnique(new ReportFile(path, fd, made));
}

ReportFile::~ReportFile() {
  close(fd_);
  if (made_ == Made::kYes && !written_) unlink(path_.c_str());
}

absl::Status ReportFile::Write(const std::string& report) {
  // A device cannot be truncated, and need not be.
  if (ftruncate(fd_, 0) != 0 && errno != EINVAL) return CannotWrite();
  size_t at = 0;
  while (at < report.size()) {
    const ssize_t count = write(fd_, report.data() + at, report.size() - at);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return CannotWrite();
    at += static_cast<size_t>(count);
  }
  written_ = true;
  return absl::OkStatus();
}

absl::Status ReportFile::CannotWrite() const {
  return absl::DataLossError(
      absl::StrCat("'", path_, "' cannot be written: ", std::strerror(errno),
                   "; name a file on a disk with room for it"));
}

}  // namespace mmud::client
