// Memory from the kernel in blocks that begin at multiples of their size, so
// that whoever has the address of a part finds the block by a mask.

#ifndef MMU_CORE_BASE_ALIGNED_BLOCK_H_
#define MMU_CORE_BASE_ALIGNED_BLOCK_H_

#include <cstddef>

namespace mmu {

// `bytes` of zeroes, faulted in as far as the kernel does that; null if it has
// none. `bytes` is a power of two, at least a page. Give it back with munmap.
// May sleep: never call it under mmu_lock (LCK-01). Thread-safe.
void* MapAlignedBlock(size_t bytes);

}  // namespace mmu

#endif  // MMU_CORE_BASE_ALIGNED_BLOCK_H_
