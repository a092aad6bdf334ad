// The names of a VM's modes, in the flags and the output of test programs.

#ifndef MMU_CORE_TESTING_MMU_MODE_NAMES_H_
#define MMU_CORE_TESTING_MMU_MODE_NAMES_H_

#include <string>

#include "absl/types/optional.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu::testing {

// "tdp", "tdp_shadow", "shadow" or "nested".
const char* ToString(MmuMode mode);
// nullopt if no mode has this name.
absl::optional<MmuMode> ParseMmuMode(const std::string& name);

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_MMU_MODE_NAMES_H_
