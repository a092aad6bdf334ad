// The sizes of the huge pages of a VM.

#ifndef MMU_CORE_VM_CORE_HUGE_PAGE_SIZES_H_
#define MMU_CORE_VM_CORE_HUGE_PAGE_SIZES_H_

#include <cstdint>

#include "mmu_core/vm/core/vm_config.h"

namespace mmu {

// A value.
struct HugePageSizes {
  uint64_t smallest = 0;  // in bytes
  bool has_1g = false;
};

// On stage 2, of the granule: its smallest block, and whether it has blocks of
// 1 GiB. On x86 2 MiB, and true.
HugePageSizes HugePageSizesOf(const VmConfig& config);

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_HUGE_PAGE_SIZES_H_
