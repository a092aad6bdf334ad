// CRC-32C (Castagnoli), the checksum of streamed pages and bitmaps.

#ifndef SERVER_BASE_CRC32C_H_
#define SERVER_BASE_CRC32C_H_

#include <cstddef>
#include <cstdint>

namespace mmud {

// The checksum of `size` bytes that follow bytes whose checksum is `before`;
// 0 for the beginning. Thread-safe.
uint32_t Crc32c(const void* data, size_t size, uint32_t before = 0);

}  // namespace mmud

#endif  // SERVER_BASE_CRC32C_H_
