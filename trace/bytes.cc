#include "trace/bytes.h"

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mmud::trace {
namespace {

template <typename Number>
void AppendLittleEndian(std::string& out, Number value) {
  for (size_t i = 0; i < sizeof(value); ++i) {
    out.push_back(static_cast<char>(value >> (8 * i)));
  }
}

template <typename Number>
Number ReadLittleEndian(std::string_view bytes, size_t offset) {
  Number value = 0;
  for (size_t i = 0; i < sizeof(value); ++i) {
    value |= static_cast<Number>(static_cast<uint8_t>(bytes[offset + i]))
             << (8 * i);
  }
  return value;
}

}  // namespace

void AppendU32(std::string& out, uint32_t value) {
  AppendLittleEndian(out, value);
}

void AppendU64(std::string& out, uint64_t value) {
  AppendLittleEndian(out, value);
}

void AppendVarint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

uint32_t ReadU32(std::string_view bytes, size_t offset) {
  return ReadLittleEndian<uint32_t>(bytes, offset);
}

uint64_t ReadU64(std::string_view bytes, size_t offset) {
  return ReadLittleEndian<uint64_t>(bytes, offset);
}

bool ConsumeVarint(std::string_view& bytes, uint64_t& value) {
  value = 0;
  for (int shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes.front());
    bytes.remove_prefix(1);
    if (shift == 63 && byte > 1) return false;
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

uint32_t Crc32(std::string_view bytes, uint32_t before) {
  return static_cast<uint32_t>(crc32_z(
      before, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

}  // namespace mmud::trace
