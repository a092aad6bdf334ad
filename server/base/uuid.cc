#include "server/base/uuid.h"

#include <cstdint>
#include <random>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"

namespace mmud {

std::string NewUuid() {
  thread_local std::random_device device;
  const auto word = [] {
    return uint64_t{device()} << 32 | static_cast<uint32_t>(device());
  };
  // RFC 4122: the version is the high nibble of byte 6, the variant the two
  // highest bits of byte 8.
  const uint64_t high = (word() & ~uint64_t{0xf000}) | 0x4000;
  const uint64_t low = (word() & ~(uint64_t{0xc0} << 56)) | uint64_t{0x80}
                                                                << 56;
  return absl::StrFormat("%08x-%04x-%04x-%04x-%012x", high >> 32,
                         (high >> 16) & 0xffff, high & 0xffff, low >> 48,
                         low & 0xffffffffffff);
}

bool IsUuid(absl::string_view text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? text[i] != '-'
             : !absl::ascii_isxdigit(static_cast<unsigned char>(text[i]))) {
      return false;
    }
  }
  const char variant = absl::ascii_tolower(text[19]);
  return text[14] == '4' &&
         (variant == '8' || variant == '9' || variant == 'a' || variant == 'b');
}

std::string CanonicalUuid(absl::string_view uuid) {
  return absl::AsciiStrToLower(uuid);
}

}  // namespace mmud
