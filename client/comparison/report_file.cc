#include "client/comparison/report_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/text/write_all.h"

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
  if (ftruncate(fd_, 0) != 0 && errno != EINVAL) {
    return CannotWrite(path_);
  }
  if (!WriteAll(fd_, report)) return CannotWrite(path_);
  written_ = true;
  return absl::OkStatus();
}

}  // namespace mmud::client
