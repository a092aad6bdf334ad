// The size of the pieces in which stage-2 blocks are split ahead of the guest's
// writes.

#ifndef MMU_CORE_VM_CORE_EAGER_SPLIT_CHUNK_H_
#define MMU_CORE_VM_CORE_EAGER_SPLIT_CHUNK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Vm::eager_split_chunk_bytes, Vm::SetEagerSplitChunk.
uint64_t EagerSplitChunk(const VmCore& vm);
absl::Status SetEagerSplitChunk(VmCore& vm, uint64_t bytes);

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_EAGER_SPLIT_CHUNK_H_
