#include "client/text/replace_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/text/write_all.h"

namespace mmud::client {
namespace {

enum class Kind { kNone, kRegular, kFolder, kOther };

Kind KindOf(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return Kind::kNone;
  if (S_ISREG(status.st_mode)) return Kind::kRegular;
  return S_ISDIR(status.st_mode) ? Kind::kFolder : Kind::kOther;
}

// The file that `path` leads to, without symlinks.
std::string Resolved(const std::string& path) {
  const std::unique_ptr<char, decltype(&free)> real(
      realpath(path.c_str(), nullptr), &free);
  return real == nullptr ? path : std::string(real.get());
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == path.npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// The rights of the file that is replaced, or else those of a new file.
mode_t ModeOf(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) == 0) return status.st_mode & 07777;
  const mode_t mask = umask(0);
  umask(mask);
  return 0666 & ~mask;
}

absl::Status WriteInPlace(const std::string& path,
                          const std::string& contents) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return CannotWrite(path);
  const bool written = WriteAll(fd, contents);
  absl::Status status = written ? absl::OkStatus() : CannotWrite(path);
  if (close(fd) != 0 && status.ok()) status = CannotWrite(path);
  return status;
}

}  // namespace

absl::Status ReplaceFile(const std::string& path, const std::string& contents) {
  if (KindOf(path) == Kind::kOther) return WriteInPlace(path, contents);
  const std::string target = Resolved(path);
  std::string temporary = absl::StrCat(target, ".XXXXXX");
  const int fd = mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) return CannotWrite(path);
  absl::Cleanup remove = [&temporary] { unlink(temporary.c_str()); };
  const bool written =
      WriteAll(fd, contents) && fchmod(fd, ModeOf(target)) == 0;
  absl::Status status = written ? absl::OkStatus() : CannotWrite(path);
  // Some file systems report a full disk only here.
  if (close(fd) != 0 && status.ok()) status = CannotWrite(path);
  if (!status.ok()) return status;
  if (rename(temporary.c_str(), target.c_str()) != 0) return CannotWrite(path);
  std::move(remove).Cancel();
  return absl::OkStatus();
}

absl::Status CheckReplaceable(const std::string& path) {
  const std::string folder = FolderOf(Resolved(path));
  std::string why;
  switch (KindOf(path)) {
    case Kind::kFolder:
      why = "it is a folder";
      break;
    case Kind::kOther:
      if (access(path.c_str(), W_OK) != 0) why = std::strerror(errno);
      break;
    default:
      if (path.empty()) {
        why = "it has no name";
      } else if (access(folder.c_str(), W_OK | X_OK) != 0) {
        why = std::strerror(errno);
      }
  }
  if (why.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("'", path, "' cannot be written: ", why,
                   "; give a file in a folder that exists and that you can "
                   "write"));
}

}  // namespace mmud::client
