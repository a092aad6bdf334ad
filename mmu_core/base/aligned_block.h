// Memory from the kernel in blocks aligned to their own size, so that masking
// the address of any byte in a block gives the address of the block.

#ifndef MMU_CORE_BASE_ALIGNED_BLOCK_H_
#define MMU_CORE_BASE_ALIGNED_BLOCK_H_

#include <cstddef>

namespace mmu {

// Maps `bytes` of zeroes, faulted in as far as the kernel does that; null if
// the kernel has no memory. `bytes` is a power of two and at least a page.
// Release the block with munmap. May sleep: never call it under mmu_lock
// (LCK-01). Thread-safe.
void* MapAlignedBlock(size_t bytes);

}  // namespace mmu

#endif  // MMU_CORE_BASE_ALIGNED_BLOCK_H_
