// Making pages that were taken from a dirty log fault on their next write.

#ifndef MMU_CORE_VM_LOGGING_REPROTECT_H_
#define MMU_CORE_VM_LOGGING_REPROTECT_H_

#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/mmu.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Re-protects the pages of `taken`, words of bits that the caller has just
// taken from a bitmap (DL-15), and flushes if there were any (DL-24). Takes
// mmu_lock for write, for a bounded time per hold. On return a write to any of
// these pages faults and marks or, with PML, is logged by the processor.
// REQUIRES: vm.slots.slots_lock.
ClearResult Reprotect(VmCore& vm, const Memslot& slot,
                      const SlotLogConfig& config,
                      const std::vector<BitmapWord>& taken, MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock);

// A part of Reprotect, for a caller with its own lock and flush: re-protects
// `pages`, all of them in `slot`, no mask 0. Adds to `also`, and to `result`
// all but that. The caller flushes before anybody may rely on it.
void ReprotectPages(VmCore& vm, MmuWriteLocked& lock, const Memslot& slot,
                    const SlotLogConfig& config,
                    absl::Span<const PageMask> pages, AlsoProtected& also,
                    ClearResult* result, MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock);

// Releases mmu_lock between groups of windows: if the hold has reached its
// limit (sync/hold_limit.h), and once in 16 windows if another thread waits, so
// that a clear does not hand the lock over at every window. Externally
// synchronised: belongs to the thread of `lock`, which outlives it.
class ReprotectPace {
 public:
  explicit ReprotectPace(MmuWriteLocked& lock)
      : lock_(lock), watch_(lock, {}) {}

  // To be called before the work on the next `windows` windows.
  void YieldIfDue(int windows);

 private:
  MmuWriteLocked& lock_;
  HoldWatch<MmuWriteLocked> watch_;
  int windows_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_LOGGING_REPROTECT_H_
