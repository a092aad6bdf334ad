#include "mmu_core/base/error.h"

#include <cerrno>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/types/optional.h"
#include "mmu_core/base/reason.h"

namespace mmu {
namespace {

// The payload is "name of reason\nfield\nerrno": none of the three contains a
// newline.
constexpr char kPayloadUrl[] = "mmu.error_detail";
// The entry's name follows this prefix. Each metadata entry is a separate
// payload, so its text may contain any character.
constexpr absl::string_view kMetadataUrl = "mmu.error_metadata/";

}  // namespace

absl::Status MakeError(absl::StatusCode code, const ErrorDetail& detail,
                       std::string_view message) {
  absl::Status status(code, absl::string_view(message.data(), message.size()));
  status.SetPayload(kPayloadUrl, absl::Cord(absl::StrCat(
                                     std::string(ToString(detail.reason)), "\n",
                                     detail.field, "\n", detail.kvm_errno)));
  for (const auto& [name, text] : detail.metadata) {
    status.SetPayload(absl::StrCat(kMetadataUrl, name), absl::Cord(text));
  }
  return status;
}

ErrorDetail DetailOf(const absl::Status& status) {
  ErrorDetail detail;
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) return detail;
  const std::vector<std::string> parts =
      absl::StrSplit(std::string(*payload), '\n');
  if (parts.size() != 3) return detail;
  int number = 0;
  if (!absl::SimpleAtoi(parts[2], &number)) return detail;
  detail.reason = ReasonNamed(parts[0]);
  detail.field = parts[1];
  detail.kvm_errno = number;
  status.ForEachPayload(
      [&detail](absl::string_view url, const absl::Cord& text) {
        if (!absl::ConsumePrefix(&url, kMetadataUrl)) return;
        detail.metadata.emplace(std::string(url), std::string(text));
      });
  return detail;
}

std::string_view ErrnoName(int kvm_errno) {
  switch (kvm_errno) {
    case EINVAL:
      return "EINVAL";
    case EEXIST:
      return "EEXIST";
    case ENOENT:
      return "ENOENT";
    case ENOMEM:
      return "ENOMEM";
    case ENOSPC:
      return "ENOSPC";
    case EIO:
      return "EIO";
    case ENXIO:
      return "ENXIO";
    case EFAULT:
      return "EFAULT";
    case EBUSY:
      return "EBUSY";
    case EPERM:
      return "EPERM";
    case E2BIG:
      return "E2BIG";
    case EAGAIN:
      return "EAGAIN";
    default:
      return "";
  }
}

}  // namespace mmu
