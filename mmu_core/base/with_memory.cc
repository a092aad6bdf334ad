#include "mmu_core/base/with_memory.h"

#include <cerrno>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"

namespace mmu {

absl::Status NoMemory(std::string_view field, std::string_view what) {
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      {Reason::kResourceExhaustedMemory, std::string(field), ENOMEM},
      absl::StrCat("no memory to ", std::string(what),
                   "; free some and try again"));
}

}  // namespace mmu
