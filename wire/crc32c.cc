#include "wire/crc32c.h"

#include <isa-l/crc.h>

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace mmud {

uint32_t Crc32c(absl::string_view data) { return ExtendCrc32c(0, data); }

uint32_t ExtendCrc32c(uint32_t crc, absl::string_view data) {
  // The caller of ISA-L must invert the checksum before and after. The size is
  // an int. The pointer is to non-const, but ISA-L only reads through it.
  constexpr size_t kMaxStep = size_t{1} << 30;
  uint32_t state = ~crc;
  while (!data.empty()) {
    const absl::string_view step = data.substr(0, kMaxStep);
    auto* const bytes =
        reinterpret_cast<unsigned char*>(const_cast<char*>(step.data()));
    state = crc32_iscsi(bytes, static_cast<int>(step.size()), state);
    data.remove_prefix(step.size());
  }
  return ~state;
}

}  // namespace mmud
