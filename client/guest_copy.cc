#include "client/guest_copy.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

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
  std::unique_ptr<GuestCopy> copy(new GuestCopy(std::move(ranges)));
  for (const GpaRange& range : copy->ranges_) {
    void* const memory =
        mmap(nullptr, range.size_bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      return absl::ResourceExhaustedError(
          absl::StrFormat("no memory for a copy of %d bytes: %s",
                          range.size_bytes, std::strerror(errno)));
    }
    copy->memory_.push_back(static_cast<char*>(memory));
  }
  return copy;
}

GuestCopy::~GuestCopy() {
  for (size_t i = 0; i < memory_.size(); ++i) {
    munmap(memory_[i], ranges_[i].size_bytes);
  }
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
  // Gives pages that were written before back to the system; they read as
  // zeros again.
  if (madvise(place, range.size_bytes, MADV_DONTNEED) != 0) {
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
