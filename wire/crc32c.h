// CRC-32C (Castagnoli, as iSCSI has it), the checksum of streamed pages and
// bitmaps: the `crc32c` fields of the API.

#ifndef WIRE_CRC32C_H_
#define WIRE_CRC32C_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace mmud {

// The checksum of `data`; 0 if `data` is empty. Thread-safe.
uint32_t Crc32c(absl::string_view data);

// The checksum of the bytes whose checksum is `crc`, followed by `data`.
// Thread-safe.
uint32_t ExtendCrc32c(uint32_t crc, absl::string_view data);

}  // namespace mmud

#endif  // WIRE_CRC32C_H_
