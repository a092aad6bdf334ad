// Handling of operator new's failures.
//
// mmu_core throws no exceptions, but the standard library's containers throw
// std::bad_alloc when memory is short. A change of a VM first allocates all
// memory that it needs, and only then changes something. Running the allocating
// part inside TryWithMemory or WithMemory turns the exception into an error,
// with nothing changed.
//
// Functions that allocate without operator new (by mmap) return null on
// failure.
//
// A container must survive that exception. Those of the standard library do.
// Abseil's hash containers do not, so neither mmu_core nor the server has any
// (//tests/layering:layering_test).

#ifndef MMU_CORE_BASE_WITH_MEMORY_H_
#define MMU_CORE_BASE_WITH_MEMORY_H_

#include <new>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"

namespace mmu {

// Calls `prepare`, which returns whether memory was enough, and returns that
// result; false if operator new failed. Objects that `prepare` made before the
// failure must be released by their owners, as on any early return. `prepare`
// changes nothing that other threads see; the part that does runs afterwards,
// outside of it, and must not use operator new. Texts in `prepare` are made by
// absl::StrCat or by Format (base/format.h).
template <typename Fn>
[[nodiscard]] bool TryWithMemory(Fn&& prepare) {
  try {
    return prepare();
  } catch (const std::bad_alloc&) {
    return false;
  }
}

// The error for a lack of memory: RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED_MEMORY
// (ENOMEM), "no memory to `what`; free some and try again". Without memory for
// that text, the same error without `field` and `what`.
absl::Status NoMemory(std::string_view field, std::string_view what);

// The same as TryWithMemory for a `prepare` that returns a Status or StatusOr:
// returns its result, or NoMemory(field, what) if operator new failed.
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
