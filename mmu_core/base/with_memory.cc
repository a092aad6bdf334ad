#include "mmu_core/base/with_memory.h"

#include <cerrno>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "mmu_core/base/error.h"

namespace mmu {

absl::Status NoMemory(std::string_view field, std::string_view what) {
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      {"RESOURCE_EXHAUSTED_MEMORY", std::string(field), ENOMEM},
      absl::StrFormat("no memory to %s; free some and try again", what));
}

}  // namespace mmu
