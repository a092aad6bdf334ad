#include "client/mmu_client/request_id.h"

#include <cstdint>
#include <random>
#include <string>

#include "absl/strings/str_format.h"

namespace mmud::client {

std::string NewRequestId() {
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

}  // namespace mmud::client
