// Little-endian numbers, varints and checksums of trace files.

#ifndef TRACE_BYTES_H_
#define TRACE_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mmud::trace {

void AppendU32(std::string& out, uint32_t value);
void AppendU64(std::string& out, uint64_t value);
// Appends seven bits per byte, the low bits first. The high bit of a byte means
// that another byte follows.
void AppendVarint(std::string& out, uint64_t value);

// REQUIRES: `bytes` contains the whole number at `offset`.
uint32_t ReadU32(std::string_view bytes, size_t offset);
uint64_t ReadU64(std::string_view bytes, size_t offset);

// Takes a varint off the front of `bytes`. False, with both arguments in an
// unspecified state, if it is cut off or exceeds 64 bits.
bool ConsumeVarint(std::string_view& bytes, uint64_t& value);

// Turns a small difference of either sign into a small number. Differences are
// modulo 2^64, so that every pair of addresses has one.
constexpr uint64_t ZigZag(uint64_t difference) {
  return (difference << 1) ^ (0 - (difference >> 63));
}
constexpr uint64_t UnZigZag(uint64_t value) {
  return (value >> 1) ^ (0 - (value & 1));
}

// zlib's CRC-32, continued from `before`.
uint32_t Crc32(std::string_view bytes, uint32_t before = 0);

}  // namespace mmud::trace

#endif  // TRACE_BYTES_H_
