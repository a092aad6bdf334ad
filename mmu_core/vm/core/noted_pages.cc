#include "mmu_core/vm/core/noted_pages.h"

#include <cstdint>
#include <memory>

#include "absl/types/optional.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/slot_number.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/dirty/slot_log.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/remote_flush.h"

namespace mmu {
namespace {

// Moves the pages of a companion bitmap into the log of its slot, if the slot
// has either.
void TakeCompanion(VmCore& vm, const Memslot* slot)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.ring_harvest_mu) {
  if (slot == nullptr || slot->dirty_bitmap == nullptr) return;
  const std::shared_ptr<SlotLog> log = vm.dirty_log.FindSlot(slot->id);
  if (log == nullptr) return;
  DirtyBitmap& bitmap = *slot->dirty_bitmap;
  bitmap.TakeAll(0, bitmap.word_count(), [&](uint64_t i, uint64_t bits) {
    log->MarkOpenWord(i, bits);
  });
}

// Harvests all rings, and the companion bitmap of `slot` or of all slots.
void HarvestLocked(VmCore& vm, absl::optional<uint32_t> slot)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.ring_harvest_mu) {
  // Neighbouring ring entries mostly share a slot.
  std::shared_ptr<SlotLog> log;
  uint32_t log_of = ~uint32_t{0};
  for (DirtyRing* const ring : vm.rings) {
    ring->Collect([&](DirtyGfn page) {
      if (page.slot != log_of) {
        log_of = page.slot;
        log = AsIdOfSlot(page.slot) == 0
                  ? vm.dirty_log.FindSlot(IdOfSlot(page.slot))
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

void SyncCpuDirtyLogs(VmCore& vm, MmuCost* cost) {
  if (vm.cpu_dirty_log_entries() == 0 || vm.logging_slots.load() == 0) return;
  const FlushResult kicked = vm.tlb.KickOut();
  if (cost != nullptr) cost->vcpus_kicked_count += kicked.vcpus_kicked;
}

void HarvestDirtyRings(VmCore& vm, absl::optional<uint32_t> slot) {
  if (!vm.has_dirty_rings()) return;
  MutexLock lock(vm.ring_harvest_mu);
  HarvestLocked(vm, slot);
}

absl::StatusOr<SealOutcome> HarvestAndSeal(VmCore& vm, DirtyLog& log,
                                           const LogCall& call,
                                           uint64_t acknowledged_epoch) {
  if (!vm.has_dirty_rings()) return log.Seal(call, acknowledged_epoch);
  // Not to be released in between:
  //   1. seal: harvests       2. vCPU: pushes the page
  //   3. another harvest: records the page, has not collected its entry yet
  //   4. seal: takes the page into the sealed epoch
  //   5. clear of that epoch: finds no collected entry, protects nothing
  // A guest's write to the page after its copy would then be in no log.
  MutexLock lock(vm.ring_harvest_mu);
  HarvestLocked(vm, absl::nullopt);
  return log.Seal(call, acknowledged_epoch);
}

absl::Status TakeInNotedPages(VmCore& vm, MmuCost* cost) {
  SyncCpuDirtyLogs(vm, cost);
  HarvestDirtyRings(vm);
  return vm.mmus.CollectDirty(cost);
}

}  // namespace mmu
