#include "client/guest_copy.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/owner_token.h"

namespace mmud::client {
namespace {

absl::Status OutOfRange(GpaRange range) {
  return absl::OutOfRangeError(
      absl::StrFormat("pages [%#x, +%#x) are not part of the copy",
                      range.gpa_bytes, range.size_bytes));
}

}  // namespace

absl::StatusOr<std::unique_ptr<GuestCopy>> GuestCopy::Create(
    std::vector<GpaRange> ranges) {
  std::unique_ptr<GuestCopy> copy(new GuestCopy(std::move(ranges), -1));
  if (absl::Status status = copy->Map(); !status.ok()) return status;
  return copy;
}

absl::StatusOr<std::unique_ptr<GuestCopy>> GuestCopy::OpenFile(
    std::vector<GpaRange> ranges, const std::string& path) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "the copy %s cannot be opened: %s", path, std::strerror(errno)));
  }
  // Closes the file from here on.
  std::unique_ptr<GuestCopy> copy(new GuestCopy(std::move(ranges), file));
  if (flock(file, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "the copy %s is another process's: %s; end that one first", path,
        std::strerror(errno)));
  }
  struct stat status = {};
  if (fstat(file, &status) != 0) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "the copy %s cannot be looked at: %s", path, std::strerror(errno)));
  }
  if (status.st_size != 0 && status.st_size != copy->size_bytes()) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "the copy %s has %d bytes and the guest %d: it is of another guest",
        path, status.st_size, copy->size_bytes()));
  }
  // Read the tokens only now: before, they may belong to a process that has the
  // copy open. An empty file stays empty until the old tokens are dropped, so a
  // process that dies in between leaves no token beside a file that looks like
  // a copy.
  if (absl::Status opened =
          copy->OpenTokens(path + ".token", /*drop=*/status.st_size == 0);
      !opened.ok()) {
    return opened;
  }
  if (status.st_size == 0 && ftruncate(file, copy->size_bytes()) != 0) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "the copy %s cannot be made: %s", path, std::strerror(errno)));
  }
  if (absl::Status mapped = copy->Map(); !mapped.ok()) return mapped;
  return copy;
}

absl::Status GuestCopy::OpenTokens(const std::string& path, bool drop) {
  token_file_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (token_file_ < 0 ||
      (drop && (ftruncate(token_file_, 0) != 0 || fsync(token_file_) != 0))) {
    return absl::FailedPreconditionError(
        absl::StrFormat("the tokens of the copy, %s, cannot be opened: %s",
                        path, std::strerror(errno)));
  }
  std::string both(2 * kOwnerTokenBytes, '\0');
  const ssize_t size = pread(token_file_, both.data(), both.size(), 0);
  if (size == static_cast<ssize_t>(both.size())) {
    owner_tokens_ = {both.substr(0, kOwnerTokenBytes),
                     both.substr(kOwnerTokenBytes)};
  }
  return absl::OkStatus();
}

absl::Status GuestCopy::KeepOwnerToken(const std::string& token,
                                       const std::string& former) {
  owner_tokens_ = {token, former.empty() ? token : former};
  if (token_file_ < 0) return absl::OkStatus();
  const std::string both = owner_tokens_[0] + owner_tokens_[1];
  if (pwrite(token_file_, both.data(), both.size(), 0) ==
          static_cast<ssize_t>(both.size()) &&
      fsync(token_file_) == 0) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrFormat(
      "the tokens of the copy cannot be written: %s", std::strerror(errno)));
}

absl::Status GuestCopy::DropOwnerTokens() {
  owner_tokens_.clear();
  if (token_file_ < 0 ||
      (ftruncate(token_file_, 0) == 0 && fsync(token_file_) == 0)) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrFormat(
      "the tokens of the copy cannot be dropped: %s", std::strerror(errno)));
}

absl::Status GuestCopy::Map() {
  int64_t offset = 0;
  for (const GpaRange& range : ranges_) {
    void* const memory =
        file_ < 0 ? mmap(nullptr, range.size_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                  : mmap(nullptr, range.size_bytes, PROT_READ | PROT_WRITE,
                         MAP_SHARED, file_, offset);
    if (memory == MAP_FAILED) {
      return absl::ResourceExhaustedError(
          absl::StrFormat("no memory for a copy of %d bytes: %s",
                          range.size_bytes, std::strerror(errno)));
    }
    memory_.push_back(static_cast<char*>(memory));
    offset += range.size_bytes;
  }
  return absl::OkStatus();
}

GuestCopy::~GuestCopy() {
  for (size_t i = 0; i < memory_.size(); ++i) {
    munmap(memory_[i], ranges_[i].size_bytes);
  }
  if (token_file_ >= 0) close(token_file_);
  // Closing the file releases the lock, so it comes last.
  if (file_ >= 0) close(file_);
}

char* GuestCopy::Find(GpaRange range) const {
  for (size_t i = 0; i < ranges_.size(); ++i) {
    if (range.gpa_bytes >= ranges_[i].gpa_bytes &&
        range.end_bytes() <= ranges_[i].end_bytes()) {
      return memory_[i] + (range.gpa_bytes - ranges_[i].gpa_bytes);
    }
  }
  return nullptr;
}

absl::Status GuestCopy::OnData(int64_t gpa_bytes, absl::string_view data) {
  const GpaRange range = {gpa_bytes, static_cast<int64_t>(data.size())};
  char* const place = Find(range);
  if (place == nullptr) return OutOfRange(range);
  std::memcpy(place, data.data(), data.size());
  return absl::OkStatus();
}

absl::Status GuestCopy::OnZeros(GpaRange range) {
  char* const place = Find(range);
  if (place == nullptr) return OutOfRange(range);
  // Give back pages that were written before. They read as zeros again.
  if (madvise(place, range.size_bytes,
              file_ < 0 ? MADV_DONTNEED : MADV_REMOVE) != 0) {
    std::memset(place, 0, range.size_bytes);
  }
  return absl::OkStatus();
}

absl::string_view GuestCopy::Bytes(GpaRange range) const {
  const char* const place = Find(range);
  if (place == nullptr) return {};
  return absl::string_view(place, range.size_bytes);
}

}  // namespace mmud::client
