#include "mmu_core/base/with_memory.h"

#include <cerrno>
#include <new>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"

namespace mmu {
namespace {

absl::Status Make(std::string_view field, std::string_view what) {
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      {Reason::kResourceExhaustedMemory, std::string(field), ENOMEM},
      absl::StrCat("no memory to ", std::string(what),
                   "; free some and try again"));
}

// Made when the program starts. A copy needs no memory.
const absl::Status* const kWithoutFacts =
    new absl::Status(Make("", "do or to say more"));

}  // namespace

absl::Status NoMemory(std::string_view field, std::string_view what) {
  try {
    return Make(field, what);
  } catch (const std::bad_alloc&) {
    return *kWithoutFacts;
  }
}

}  // namespace mmu
