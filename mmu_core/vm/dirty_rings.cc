#include "mmu_core/vm/dirty_rings.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include "absl/types/optional.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/dirty/dirty_window.h"
#include "mmu_core/dirty/slot_log.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/tlb_flush_batch.h"
#include "mmu_core/vm/reprotect.h"

namespace mmu {
namespace {

int AsIdOf(uint32_t slot) { return static_cast<int>(slot >> 16); }
uint32_t IdOf(uint32_t slot) { return slot & 0xffff; }

// Frees the collected entries of one ring. At most one lap: the vCPU may go on
// filling what was freed.
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

// Pages of the window that its slot has.
uint64_t ValidMask(const DirtyWindow& window, const Memslot& slot) {
  if (window.offset >= slot.npages) return 0;
  const uint64_t pages = slot.npages - window.offset;
  return pages >= 64 ? window.mask : window.mask & ((uint64_t{1} << pages) - 1);
}

// Moves what a companion bitmap notes into the log of its slot, if that has
// any.
void TakeCompanion(VmState& vm, const Memslot* slot)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.ring_harvest_mu) {
  if (slot == nullptr || slot->dirty_bitmap == nullptr) return;
  const std::shared_ptr<SlotLog> log = vm.dirty_log.FindSlot(slot->id);
  if (log == nullptr) return;
  DirtyBitmap& bitmap = *slot->dirty_bitmap;
  bitmap.TakeAll(0, bitmap.word_count(), [&](uint64_t i, uint64_t bits) {
    log->MarkOpenWord(i, bits);
  });
}

// All rings, and the companion bitmap of `slot`, or of all slots.
void HarvestLocked(VmState& vm, absl::optional<uint32_t> slot)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.ring_harvest_mu) {
  // Neighbours in a ring mostly share a slot.
  std::shared_ptr<SlotLog> log;
  uint32_t log_of = ~uint32_t{0};
  for (const auto& vcpu : vm.vcpus) {
    vcpu->dirty_ring()->Collect([&](DirtyGfn page) {
      if (page.slot != log_of) {
        log_of = page.slot;
        log = AsIdOf(page.slot) == 0 ? vm.dirty_log.FindSlot(IdOf(page.slot))
                                     : nullptr;
      }
      if (log != nullptr && page.offset < log->npages()) {
        log->MarkOpen(page.offset);
      }
    });
  }
  if (vm.config.companion_bitmap == VmConfig::CompanionBitmap::kNo) return;
  RcuReadGuard rcu;
  const MemslotSet& set = vm.slots.Active(0);
  if (slot.has_value()) return TakeCompanion(vm, set.FindById(*slot));
  for (const Memslot* each : set.slots()) TakeCompanion(vm, each);
}

}  // namespace

void HarvestDirtyRings(VmState& vm, absl::optional<uint32_t> slot) {
  if (!vm.has_dirty_rings()) return;
  MutexLock lock(vm.ring_harvest_mu);
  HarvestLocked(vm, slot);
}

absl::StatusOr<SealOutcome> HarvestAndSeal(VmState& vm, DirtyLog& log,
                                           const LogCall& call,
                                           uint64_t acknowledged_epoch) {
  if (!vm.has_dirty_rings()) return log.Seal(call, acknowledged_epoch);
  // Not to be let go of in between:
  //   1. seal: harvests       2. vCPU: pushes the page
  //   3. another harvest: records the page, has not collected its entry yet
  //   4. seal: takes the page into the sealed epoch
  //   5. clear of that epoch: finds no collected entry, protects nothing
  // and what the guest writes to the page after its copy is in no log.
  MutexLock lock(vm.ring_harvest_mu);
  HarvestLocked(vm, absl::nullopt);
  return log.Seal(call, acknowledged_epoch);
}

uint64_t ResetDirtyRingsLocked(VmState& vm,
                               absl::FunctionRef<bool()> stop_requested,
                               MmuCost* cost) {
  const SlotLogConfig config = vm.dirty_log.ConfigOfSlots();
  uint64_t count = 0;
  for (const auto& vcpu : vm.vcpus) {
    std::vector<DirtyWindow>& windows = vm.reset_windows;
    windows.clear();
    count += TakeWindows(*vcpu->dirty_ring(), stop_requested, &windows);
    if (windows.empty()) continue;
    AtHook(HookPoint::kTakeToProtect);
    MmuWriteLocked lock(vm.mmu_lock, LockOp::kClear, cost);
    ReprotectPace pace(lock);
    for (const DirtyWindow& window : windows) {
      if (AsIdOf(window.slot) >= vm.slots.address_spaces()) continue;
      const Memslot* slot =
          vm.slots.Active(AsIdOf(window.slot)).FindById(IdOf(window.slot));
      if (slot == nullptr) continue;
      const uint64_t mask = ValidMask(window, *slot);
      if (mask == 0) continue;
      pace.YieldIfDue();
      ClearResult result;
      ReprotectWindow(vm, lock, *slot, config, slot->base_gfn + window.offset,
                      mask, &result, cost);
    }
  }
  return count;
}

uint64_t ReclaimDirtyRingsLocked(VmState& vm, MmuCost* cost) {
  if (!vm.has_dirty_rings()) return 0;
  HarvestDirtyRings(vm, absl::nullopt);
  return ResetDirtyRingsLocked(
      vm, [] { return false; }, cost);
}

void FinishDirtyRingReset(VmState& vm, uint64_t count, MmuCost* cost) {
  if (count == 0) return;
  AtHook(HookPoint::kProtectToFlush);
  TlbFlushBatch batch(vm.tlb, FlushScope::kVm, FlushReason::kClearDirty);
  batch.FlushAlways(cost);
  vm.runner.DirtyRingsHaveRoom();
}

absl::StatusOr<uint64_t> ResetDirtyRings(
    VmState& vm, absl::FunctionRef<bool()> stop_requested, MmuCost* cost) {
  if (!vm.has_dirty_rings()) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     {"INVALID_DIRTY_LOG_MODE", "", EINVAL},
                     "this VM has no dirty rings; create it with them");
  }
  uint64_t count = 0;
  {
    MutexLock lock(vm.slots.slots_lock);
    count = ResetDirtyRingsLocked(vm, stop_requested, cost);
  }
  FinishDirtyRingReset(vm, count, cost);
  return count;
}

}  // namespace mmu
