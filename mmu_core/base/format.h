// printf-like formatting that reports a lack of memory.
//
// absl::StrFormat appends to its string in a destructor, so an allocation
// failure ends the program. Format instead throws std::bad_alloc, which
// WithMemory (base/with_memory.h) turns into an error. mmu_core uses no other
// formatting function (//tests/layering).

#ifndef MMU_CORE_BASE_FORMAT_H_
#define MMU_CORE_BASE_FORMAT_H_

#include <array>
#include <cstddef>
#include <string>

#include "absl/strings/str_format.h"

namespace mmu {

// Formats like absl::StrFormat.
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
