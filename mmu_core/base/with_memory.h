// What is done where operator new finds no memory.
//
// mmu_core throws nothing. But the standard library's containers do, where they
// find no memory: std::bad_alloc. A change of a VM first asks for all memory
// that it needs, and only then changes something. So whoever ends the first
// part with this function gives the caller an error, and changed nothing.
//
// Memory that is not taken by operator new (mmap) is asked for by functions
// that return null.

#ifndef MMU_CORE_BASE_WITH_MEMORY_H_
#define MMU_CORE_BASE_WITH_MEMORY_H_

#include <new>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"

namespace mmu {

// Calls `prepare`, which returns whether memory was enough, and returns the
// same; false if operator new had none. What `prepare` made until then must go
// with its owners, as with any early return. `prepare` changes nothing that
// others see: what comes after is not part of it, and asks operator new for
// nothing. Texts in it are made by absl::StrCat or by Format (base/format.h).
template <typename Fn>
[[nodiscard]] bool TryWithMemory(Fn&& prepare) {
  try {
    return prepare();
  } catch (const std::bad_alloc&) {
    return false;
  }
}

// What the caller is told then: RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED_MEMORY
// (ENOMEM). "no memory to `what`; free some and try again".
absl::Status NoMemory(std::string_view field, std::string_view what);

// The same as TryWithMemory for a `prepare` that returns a Status or StatusOr:
// returns that, or NoMemory(field, what) if operator new had none.
template <typename Fn>
[[nodiscard]] std::invoke_result_t<Fn> WithMemory(std::string_view field,
                                                  std::string_view what,
                                                  Fn&& prepare) {
  try {
    return prepare();
  } catch (const std::bad_alloc&) {
    return NoMemory(field, what);
  }
}

}  // namespace mmu

#endif  // MMU_CORE_BASE_WITH_MEMORY_H_
