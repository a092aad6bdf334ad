#include "mmu_core/vm/logging/dirty_rings.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "absl/types/optional.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/base/slot_number.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/dirty/dirty_window.h"
#include "mmu_core/dirty/slot_log.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/tlb_flush_batch.h"
#include "mmu_core/vm/core/noted_pages.h"
#include "mmu_core/vm/logging/reprotect.h"

namespace mmu {
namespace {

// Frees the collected entries of one ring. At most one lap: the vCPU may keep
// filling the freed entries.
uint64_t TakeWindows(DirtyRing& ring, absl::FunctionRef<bool()> stop_requested,
                     std::vector<DirtyWindow>* windows) {
  uint64_t count = 0;
  for (uint32_t n = 0; n < ring.size() && !stop_requested(); ++n) {
    const absl::optional<DirtyGfn> page = ring.TakeCollected();
    if (!page.has_value()) break;
    ++count;
    if (windows->empty() || !windows->back().Add(*page)) {
      windows->push_back(DirtyWindow::Of(*page));
    }
  }
  return count;
}

// The pages of the window that lie within its slot.
uint64_t ValidMask(const DirtyWindow& window, const Memslot& slot) {
  if (window.offset >= slot.npages) return 0;
  return window.mask & WordMask(0, 0, slot.npages - window.offset);
}

// ResetDirtyRingsLocked until `stop_requested` returns true.
RingReset ResetUntilStopped(VmCore& vm,
                            absl::FunctionRef<bool()> stop_requested,
                            MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  const SlotLogConfig config = vm.dirty_log.ConfigOfSlots();
  RingReset reset{.unflushed = vm.unflushed_resets.Begin()};
  for (DirtyRing* const ring : vm.rings) {
    std::vector<DirtyWindow>& windows = vm.reset_windows;
    windows.clear();
    reset.count += TakeWindows(*ring, stop_requested, &windows);
    if (windows.empty()) continue;
    AtHook(HookPoint::kTakeToProtect);
    MmuWriteLocked lock(vm.mmu_lock, LockOp::kClear, cost);
    ReprotectPace pace(lock);
    for (const DirtyWindow& window : windows) {
      if (AsIdOfSlot(window.slot) >= vm.slots.address_spaces()) continue;
      const Memslot* slot = vm.slots.Active(AsIdOfSlot(window.slot))
                                .FindById(IdOfSlot(window.slot));
      if (slot == nullptr) continue;
      const uint64_t mask = ValidMask(window, *slot);
      if (mask == 0) continue;
      pace.YieldIfDue(/*windows=*/1);
      ClearResult result;
      AlsoProtected also;
      const PageMask pages = {slot->base_gfn + window.offset, mask};
      ReprotectPages(vm, lock, *slot, config, {&pages, 1}, also, &result, cost);
    }
  }
  return reset;
}

}  // namespace

RingReset ResetDirtyRingsLocked(VmCore& vm, MmuCost* cost) {
  if (!vm.has_dirty_rings()) return {};
  return ResetUntilStopped(
      vm, [] { return false; }, cost);
}

void FinishDirtyRingReset(VmCore& vm, RingReset reset, MmuCost* cost) {
  if (reset.count == 0) return;
  AtHook(HookPoint::kProtectToFlush);
  TlbFlushBatch batch(vm.tlb, FlushScope::kVm, FlushReason::kClearDirty);
  batch.FlushEverything(cost);
  reset.unflushed.reset();
  vm.vcpu_runner->DirtyRingsHaveRoom();
}

absl::StatusOr<uint64_t> ResetDirtyRings(
    VmCore& vm, absl::FunctionRef<bool()> stop_requested, MmuCost* cost) {
  if (!vm.has_dirty_rings()) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     {Reason::kInvalidDirtyLogMode, "", EINVAL},
                     "this VM has no dirty rings; create it with them");
  }
  RingReset reset;
  {
    MutexLock lock(vm.slots.slots_lock);
    reset = ResetUntilStopped(vm, stop_requested, cost);
  }
  const uint64_t count = reset.count;
  FinishDirtyRingReset(vm, std::move(reset), cost);
  return count;
}

}  // namespace mmu
