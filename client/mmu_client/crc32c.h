// CRC-32C (Castagnoli), the checksum of the API's chunks.

#ifndef CLIENT_MMU_CLIENT_CRC32C_H_
#define CLIENT_MMU_CLIENT_CRC32C_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace mmud::client {

// The checksum of `data`.
uint32_t Crc32c(absl::string_view data);

// The checksum of the bytes whose checksum is `crc`, followed by `data`. 0 is
// the checksum of no bytes.
uint32_t ExtendCrc32c(uint32_t crc, absl::string_view data);

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_CRC32C_H_
