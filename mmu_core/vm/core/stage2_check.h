// The rules of a Stage2Config.

#ifndef MMU_CORE_VM_CORE_STAGE2_CHECK_H_
#define MMU_CORE_VM_CORE_STAGE2_CHECK_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu {

// Whether config.stage2 describes tables that can be made, and config has no
// option that only x86 has. INVALID_ARGUMENT INVALID_MMU_OPTION (EINVAL); the
// field is that of VmConfig. REQUIRES: config.mmu is kStage2.
absl::Status CheckStage2Config(const VmConfig& config);

// Whether `bytes` is 0 or one of the granule's Stage2LeafSizes() (ARM-21).
// Errors: as above, of the field `field`. REQUIRES: a valid granule.
absl::Status CheckEagerSplitChunk(uint32_t granule_bytes, uint64_t bytes,
                                  const std::string& field);

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_STAGE2_CHECK_H_
