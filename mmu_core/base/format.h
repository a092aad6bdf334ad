// printf-like texts where memory may be short.
//
// absl::StrFormat appends to its string in a destructor, so without memory it
// ends the program. This throws std::bad_alloc as everything else does, which
// WithMemory (base/with_memory.h) turns into a refusal. mmu_core has no other
// (//tests/layering).

#ifndef MMU_CORE_BASE_FORMAT_H_
#define MMU_CORE_BASE_FORMAT_H_

#include <array>
#include <cstddef>
#include <string>

#include "absl/strings/str_format.h"

namespace mmu {

// As absl::StrFormat.
template <typename... Args>
std::string Format(const absl::FormatSpec<Args...>& format,
                   const Args&... args) {
  std::array<char, 512> buffer;
  const auto size = static_cast<size_t>(
      absl::SNPrintF(buffer.data(), buffer.size(), format, args...));
  if (size < buffer.size()) return std::string(buffer.data(), size);
  std::string text(size + 1, '\0');
  absl::SNPrintF(text.data(), text.size(), format, args...);
  text.resize(size);
  return text;
}

}  // namespace mmu

#endif  // MMU_CORE_BASE_FORMAT_H_
