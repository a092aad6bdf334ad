#include "mmu_core/base/aligned_block.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

namespace mmu {

void* MapAlignedBlock(size_t bytes) {
  // Maps twice the size, so that an aligned block fits, and unmaps the rest.
  void* raw = mmap(nullptr, 2 * bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  const auto begin = reinterpret_cast<uintptr_t>(raw);
  const uintptr_t aligned = (begin + bytes - 1) & ~(bytes - 1);
  if (aligned != begin) munmap(raw, aligned - begin);
  const uintptr_t end = begin + 2 * bytes;
  if (aligned + bytes != end) {
    munmap(reinterpret_cast<void*>(aligned + bytes), end - aligned - bytes);
  }
  // Best effort: both calls only save page faults.
  void* const block = reinterpret_cast<void*>(aligned);
  madvise(block, bytes, MADV_HUGEPAGE);
  madvise(block, bytes, MADV_POPULATE_WRITE);
  return block;
}

}  // namespace mmu
