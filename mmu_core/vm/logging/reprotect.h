// Making pages that were taken from a dirty log fault on their next write.

#ifndef MMU_CORE_VM_LOGGING_REPROTECT_H_
#define MMU_CORE_VM_LOGGING_REPROTECT_H_

#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/address.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Re-protects the pages of `taken`, words of bits that the caller just took out
// of a bitmap (DL-15), and flushes if there was any (DL-24). Takes mmu_lock for
// write, for a bounded time at once. When it returns, a write to any of these
// pages faults and marks, or, with PML, is noted by the processor. REQUIRES:
// vm.slots.slots_lock.
ClearResult Reprotect(VmCore& vm, const Memslot& slot,
                      const SlotLogConfig& config,
                      const std::vector<BitmapWord>& taken, MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock);

// A part of that, for a caller with a lock and a flush of its own: re-protects
// the pages `first + i` whose bit i is set in `mask`, not 0, all of them in
// `slot`. Adds to `result`. The caller flushes before anybody may rely on it.
void ReprotectWindow(VmCore& vm, MmuWriteLocked& lock, const Memslot& slot,
                     const SlotLogConfig& config, Gfn first, uint64_t mask,
                     ClearResult* result, MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock);

// Lets others have mmu_lock in the middle of many windows: when the hold has
// reached its limit (sync/hold_limit.h), and once in 16 windows if somebody
// waits, so that a clear does not go from hand to hand at every window.
// Externally synchronised: belongs to the thread of `lock`, which outlives it.
class ReprotectPace {
 public:
  explicit ReprotectPace(MmuWriteLocked& lock)
      : lock_(lock), watch_(lock, {}) {}

  // To be called before each window.
  void YieldIfDue();

 private:
  MmuWriteLocked& lock_;
  HoldWatch<MmuWriteLocked> watch_;
  int windows_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_LOGGING_REPROTECT_H_
