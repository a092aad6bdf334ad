#include "mmu_core/vm/logging/reprotect.h"

#include <bit>

#include "mmu_core/base/hooks.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tlb/tlb_flush_batch.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {
namespace {

constexpr int kWindowsPerLook = 16;

// Takes W, for good, from the huge leafs that map `gfn`. The caller flushes.
bool WriteProtectHuge(VmCore& vm, const MmuWriteLocked& lock,
                      const Memslot& slot, Gfn gfn) {
  bool changed = vm.tdp.WriteProtectGfn(lock, slot.as_id, gfn, Level::k2M);
  if (SlotRmaps* const rmaps = slot.shadow_rmaps()) {
    changed |= vm.shadow->pages().links().WriteProtectGfn(lock, *rmaps, gfn,
                                                          Level::k2M);
  }
  return changed;
}

// Logging began without protecting anything, so these pages may still be inside
// writable huge ones: split those if asked to, and protect what stays huge
// (DL-15).
void ProtectHuge(VmCore& vm, MmuWriteLocked& lock, const Memslot& slot,
                 SplitPolicy policy, Gfn first_set, Gfn last_set,
                 ClearResult* result, MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  const GfnRange range = {first_set, last_set + 1};
  if (policy == SplitPolicy::kOnClear) {
    const auto add = [result](const SplitOutcome& split) {
      result->split_2m_count += split.split_2m_count;
      result->split_1g_count += split.split_1g_count;
    };
    // These may let go of the lock: what is to be protected is in nobody's
    // bitmap any more (DL-27).
    if (vm.shadow != nullptr) {
      add(vm.shadow->split().Split(lock, slot, range, Level::k4K,
                                   SplitTrigger::kClear,
                                   vm.shadow->split_caches(), cost));
    }
    add(vm.tdp.Split(lock, slot.as_id, range, Level::k4K, SplitTrigger::kClear,
                     vm.operation_tables, /*deadline_nanos=*/0, cost));
  }
  bool changed = WriteProtectHuge(vm, lock, slot, first_set);
  if (RoundDown(first_set, Level::k2M) != RoundDown(last_set, Level::k2M)) {
    changed |= WriteProtectHuge(vm, lock, slot, last_set);
  }
  if (!changed) return;
  // MMU-writable went away: before the lock is dropped (TLB-06).
  TlbFlushBatch now(vm.tlb, FlushScope::kRange, FlushReason::kClearDirty);
  now.Add(range);
  now.Flush(cost);
}

}  // namespace

void ReprotectPace::YieldIfDue() {
  const bool look = ++windows_ % kWindowsPerLook == 0;
  if (watch_.IsOver() || (look && lock_.NeedYield())) lock_.Yield();
}

void ReprotectWindow(VmCore& vm, MmuWriteLocked& lock, const Memslot& slot,
                     const SlotLogConfig& config, Gfn first, uint64_t mask,
                     ClearResult* result, MmuCost* cost) {
  result->cleared_page_count += std::popcount(mask);
  if (config.initially_set == InitiallySet::kYes) {
    ProtectHuge(vm, lock, slot, config.split, first + std::countr_zero(mask),
                first + (63 - std::countl_zero(mask)), result, cost);
  }
  if (vm.cpu_dirty_log_entries() != 0) {
    vm.tdp.ClearDirtyMasked(lock, slot.as_id, first, mask, cost);
    if (vm.shadow != nullptr) {
      vm.shadow->log().ClearDirtyMasked(lock, slot, first, mask, cost);
    }
  } else {
    vm.tdp.WriteProtectMasked(lock, slot.as_id, first, mask, cost);
    if (vm.shadow != nullptr) {
      vm.shadow->log().WriteProtectMasked(lock, slot, first, mask, cost);
    }
  }
}

ClearResult Reprotect(VmCore& vm, const Memslot& slot,
                      const SlotLogConfig& config,
                      const std::vector<BitmapWord>& taken, MmuCost* cost) {
  ClearResult result;
  if (taken.empty()) return result;
  TlbFlushBatch batch(vm.tlb, FlushScope::kRange, FlushReason::kClearDirty);
  AtHook(HookPoint::kTakeToProtect);
  {
    MmuWriteLocked lock(vm.mmu_lock, LockOp::kClear, cost);
    ReprotectPace pace(lock);
    for (const BitmapWord& word : taken) {
      pace.YieldIfDue();
      const Gfn first = slot.base_gfn + word.index * 64;
      ReprotectWindow(vm, lock, slot, config, first, word.bits, &result, cost);
      batch.Add(GfnRange::Of(first, 64));
    }
  }
  // Without the lock: what lost only W is still MMU-writable, which tells
  // everybody that a TLB may allow more than the tables (TLB-05, TLB-08).
  AtHook(HookPoint::kProtectToFlush);
  batch.Flush(cost);
  return result;
}

}  // namespace mmu
