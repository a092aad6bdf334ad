#include "server/base/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace mmud {

uint32_t Crc32c(const void* data, size_t size, uint32_t before) {
  // ISA-L leaves the inversion before and after to its caller, takes an int
  // for the size and a pointer to non-const, which it only reads.
  constexpr size_t kMaxStep = size_t{1} << 30;
  auto* bytes = static_cast<unsigned char*>(const_cast<void*>(data));
  uint32_t crc = ~before;
  while (size > 0) {
    const size_t step = std::min(size, kMaxStep);
    crc = crc32_iscsi(bytes, static_cast<int>(step), crc);
    bytes += step;
    size -= step;
  }
  return ~crc;
}

}  // namespace mmud
