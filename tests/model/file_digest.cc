#include "tests/model/file_digest.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <fstream>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "mmu_core/guest/random.h"

namespace mmu::testing {

absl::StatusOr<std::string> DigestOfFile(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return absl::NotFoundError(absl::StrCat("cannot read ", file));
  uint64_t digest = 0;
  uint64_t size = 0;
  std::array<char, 1 << 16> buffer;
  do {
    in.read(buffer.data(), buffer.size());
    const auto bytes = static_cast<size_t>(in.gcount());
    size += bytes;
    std::memset(buffer.data() + bytes, 0, buffer.size() - bytes);
    for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) {
      uint64_t word;
      std::memcpy(&word, buffer.data() + i, sizeof(word));
      digest = MixBits(digest ^ word);
    }
  } while (in);
  if (in.bad()) return absl::DataLossError(absl::StrCat("cannot read ", file));
  // The zeros behind the last byte are no part of the file.
  return absl::StrFormat("%016x", MixBits(digest ^ size));
}

}  // namespace mmu::testing
