#include "mmu_core/vm/slots/region_hooks.h"

#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/paging/mmio_spte.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tlb/tlb_flush_batch.h"
#include "mmu_core/tlb/vcpu_gate.h"
#include "mmu_core/vm/core/noted_pages.h"

namespace mmu {

void RegionHooks::BeforeSwap(RegionChange change, const Memslot* old_slot) {
  if (change == RegionChange::kCreate && joining_.has_value()) {
    // The slot joins the log before it is published, since a harvest of rings
    // drops entries that belong to no log (RACE-18). slots_lock keeps clears
    // out in between.
    const std::shared_ptr<VmDirtyLog> log = vm_.dirty_log.Get();
    log->log.Join(*std::move(joining_));
    joining_.reset();
  }
  if (change != RegionChange::kDelete && change != RegionChange::kMove) return;
  if (old_slot->as_id == 0) vm_.vcpu_runner->MemoryGoes(old_slot->range());
}

void RegionHooks::FlushShadowSlot(const Memslot& old_slot) {
  vm_.slots.slots_lock.AssertHeld();
  // Collected while the MMUs still map the slot. An MMU's error does not
  // prevent the deletion: a caller that refuses to lose pages has already got
  // it.
  if (old_slot.dirty_log_enabled()) {
    static_cast<void>(vm_.mmus.CollectDirty(cost_));
  }
  if (vm_.config.slot_zap == VmConfig::SlotZap::kAll) {
    vm_.mmus.FastZapAll(LockOp::kMemslot, cost_);
  } else {
    // Faults that found the slot before it became invalid have ended, and later
    // faults retry. So mappings zapped now do not come back (RACE-13).
    MmuWriteLocked lock(vm_.mmu_lock, LockOp::kMemslot, cost_);
    vm_.mmus.ForgetSlot(lock, old_slot, cost_);
  }
  // No mapping of the slot is left, so the CPUs' logs get no new entries for
  // it. Their entries name the slot's current gfns; the log of a slot that
  // moves keeps them.
  if (old_slot.dirty_log_enabled()) SyncCpuDirtyLogs(vm_, cost_);
}

void RegionHooks::CommitRegion(RegionChange change, const Memslot* old_slot,
                               const Memslot* new_slot) {
  // The count comes first, for every kind of change, because writes to leafs
  // that lose D below must be logged.
  CountLoggingSlots(old_slot, new_slot);
  if (old_slot == nullptr || new_slot == nullptr) {
    vm_.mmus.SlotsChanged(vm_.slots.total_pages(), cost_);
  }
  if (new_slot == nullptr || !new_slot->dirty_log_enabled()) {
    vm_.mmus.FreeSplitTables();
  }
  if (change == RegionChange::kMove && new_slot->as_id == 0) {
    const std::shared_ptr<VmDirtyLog> log = vm_.dirty_log.Get();
    if (log != nullptr) log->log.Moved(new_slot->id);
  }
  // A new slot has no mapping yet, and a moved slot none any more; a read-only
  // slot cannot be written.
  if (change != RegionChange::kFlagsOnly || new_slot->readonly()) return;
  if (!old_slot->dirty_log_enabled() && new_slot->dirty_log_enabled()) {
    EnableLog(*new_slot);
  }
}

void RegionHooks::GenerationAdvanced(uint64_t generation) {
  // The low bits only distinguish the address spaces (SLOT-21).
  const uint64_t spaces = static_cast<uint64_t>(vm_.slots.address_spaces());
  if ((generation & kMmioGenerationMask & ~(spaces - 1)) != 0) return;
  vm_.mmus.FastZapAll(LockOp::kMemslot, cost_);
}

void RegionHooks::CountLoggingSlots(const Memslot* old_slot,
                                    const Memslot* new_slot) {
  const auto logs = [](const Memslot* slot) {
    return slot != nullptr && slot->dirty_log_enabled() ? 1 : 0;
  };
  const int change = logs(new_slot) - logs(old_slot);
  if (change == 0) return;
  const int now = vm_.logging_slots.fetch_add(change) + change;
  MMU_CHECK(now >= 0);
  if (vm_.cpu_dirty_log_entries() == 0) return;
  if (now == 0 || (now == 1 && change == 1)) {
    vm_.tlb.Request(kUpdateCpuDirtyLog);
  }
}

void RegionHooks::EnableLog(const Memslot& slot) {
  AtHook(HookPoint::kFlagToProtect);
  // Every page is dirty already; the first clear write-protects (DL-04).
  if (log_.initially_set == InitiallySet::kYes) return;

  const SplitOutcome split = vm_.mmus.EnableLog(
      slot,
      {.split = log_.split, .notice_by = vm_.notice_by(), .limit = limit_},
      cost_);
  split_.AddCounts(split);
  if (split.flushed) return;
  TlbFlushBatch batch(vm_.tlb, FlushScope::kRange, FlushReason::kWriteProtect);
  batch.FlushAlways(slot.range(), cost_);
}

void RegionHooks::RecoverHugePages(const Memslot& slot) {
  vm_.slots.slots_lock.AssertHeld();
  if (slot.readonly()) return;
  recovered_ += vm_.mmus.Recover(slot, slot.range(), cost_);
}

}  // namespace mmu
