#include "tests/fuzz/mutation.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mmud::fuzz {
namespace {

// Characters and numbers at which parsers decide.
constexpr std::string_view kTokens[] = {
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "/",
    "..",
    "-",
    "0",
    "1e9",
    "\n",
    " ",
    "true",
    "\xff",
    "\x80",
    "\r\n",
    "9223372036854775807",
    "-9223372036854775808",
    "nan",
    "\xc3\x28",
};

void ChangeOnce(std::string* input, Random& random) {
  const size_t size = input->size();
  const size_t at = Below(random, size + 1);
  const size_t length = Below(random, 1 + std::min<size_t>(size - at, 32));
  switch (Below(random, 8)) {
    case 0:
      if (at < size) {
        (*input)[at] =
            static_cast<char>((*input)[at] ^ (1 << Below(random, 8)));
      }
      return;
    case 1:
      if (at < size) (*input)[at] = static_cast<char>(random());
      return;
    case 2:
      input->insert(at, 1 + Below(random, 8), static_cast<char>(random()));
      return;
    case 3:
      input->insert(at, kTokens[Below(random, std::size(kTokens))]);
      return;
    case 4:
      input->erase(at, length);
      return;
    case 5:
      input->insert(Below(random, size + 1), input->substr(at, length));
      return;
    case 6:
      if (Below(random, 4) == 0) input->resize(at);
      return;
    default:
      // A little-endian number of four bytes, small or huge.
      for (size_t i = at; i < std::min(at + 4, size); ++i) {
        (*input)[i] = Below(random, 2) == 0 ? '\0' : '\xff';
      }
      return;
  }
}

}  // namespace

std::string MutateBytes(std::string input, Random& random) {
  for (uint64_t left = 1 + Below(random, 4); left > 0; --left) {
    ChangeOnce(&input, random);
  }
  if (input.size() > kMaxInputBytes) input.resize(kMaxInputBytes);
  return input;
}

}  // namespace mmud::fuzz
