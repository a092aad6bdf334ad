// The sizes of stage-2 mappings.

#ifndef MMU_CORE_VM_CORE_STAGE2_LEAF_SIZES_H_
#define MMU_CORE_VM_CORE_STAGE2_LEAF_SIZES_H_

#include <cstdint>
#include <vector>

namespace mmu {

// The sizes of a page and of the blocks of a granule in bytes, from the
// smallest up: the sizes that KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES reports
// (ARM-21). REQUIRES: granule_bytes is 4096, 16384 or 65536.
std::vector<uint64_t> Stage2LeafSizes(uint32_t granule_bytes);

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_STAGE2_LEAF_SIZES_H_
