// Making pages that were taken from a dirty log fault on their next write.

#ifndef MMU_CORE_VM_REPROTECT_H_
#define MMU_CORE_VM_REPROTECT_H_

#include <vector>

#include "absl/base/thread_annotations.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/epoch_log.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/stats/mmu_cost.h"

namespace mmu {

struct VmState;

// Re-protects the pages of `taken`, words of bits that the caller just took out
// of a bitmap (DL-15), and flushes if there was any (DL-24). Takes mmu_lock for
// write, for a bounded time at once. When it returns, a write to any of these
// pages faults and marks. REQUIRES: vm.slots.slots_lock.
ClearResult Reprotect(VmState& vm, const Memslot& slot,
                      const DirtyLogConfig& config,
                      const std::vector<BitmapWord>& taken, MmuCost* cost);

}  // namespace mmu

#endif  // MMU_CORE_VM_REPROTECT_H_
