#include "mmu_core/vm/reprotect.h"

#include <bit>

#include "mmu_core/base/hooks.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tdp/yield_point.h"
#include "mmu_core/tlb/tlb_flush_batch.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

// Writers are not let in more often than this, readers hardly wait longer.
constexpr int64_t kMaxHoldNanos = YieldPoint<MmuWriteLocked>::kMaxHoldNanos;
constexpr int kWordsPerLook = 16;

class Reprotector {
 public:
  Reprotector(VmState& vm, const Memslot& slot, const DirtyLogConfig& config,
              MmuCost* cost)
      : vm_(vm),
        slot_(slot),
        config_(config),
        cost_(cost),
        batch_(vm.tlb, FlushScope::kRange, FlushReason::kClearDirty) {}

  ClearResult Run(const std::vector<BitmapWord>& taken) {
    vm_.slots.slots_lock.AssertHeld();
    if (taken.empty()) return result_;
    AtHook(HookPoint::kTakeToProtect);
    {
      MmuWriteLocked lock(vm_.mmu_lock, LockOp::kClear, cost_);
      int64_t held_since = MonotonicNanos();
      int words = 0;
      for (const BitmapWord& word : taken) {
        if (++words % kWordsPerLook == 0 &&
            (lock.NeedYield() ||
             MonotonicNanos() - held_since >= kMaxHoldNanos)) {
          lock.Yield();
          held_since = MonotonicNanos();
        }
        Word(lock, word);
      }
    }
    AtHook(HookPoint::kProtectToFlush);
    // Without the lock: what lost only W is still MMU-writable, which tells
    // everybody that a TLB may allow more than the tables (TLB-05, TLB-08).
    batch_.Flush(cost_);
    return result_;
  }

 private:
  void Word(MmuWriteLocked& lock, const BitmapWord& word) {
    const Gfn first = slot_.base_gfn + word.index * 64;
    result_.cleared_page_count += std::popcount(word.bits);
    if (config_.initially_set == InitiallySet::kYes) {
      ProtectHuge(lock, first + std::countr_zero(word.bits),
                  first + (63 - std::countl_zero(word.bits)));
    }
    vm_.tdp.WriteProtectMasked(lock, slot_.as_id, first, word.bits, cost_);
    batch_.Add(GfnRange::Of(first, 64));
  }

  // Logging began without protecting anything, so these pages may still be
  // inside writable huge ones: split those if asked to, and protect what stays
  // huge (DL-15).
  void ProtectHuge(MmuWriteLocked& lock, Gfn first_set, Gfn last_set) {
    vm_.slots.slots_lock.AssertHeld();
    if (config_.split == SplitPolicy::kOnClear) {
      const SplitOutcome split =
          vm_.tdp.Split(lock, slot_.as_id, GfnRange{first_set, last_set + 1},
                        Level::k4K, SplitTrigger::kClear, vm_.operation_tables,
                        /*deadline_nanos=*/0, cost_);
      result_.split_2m_count += split.split_2m_count;
      result_.split_1g_count += split.split_1g_count;
    }
    bool changed =
        vm_.tdp.WriteProtectGfn(lock, slot_.as_id, first_set, Level::k2M);
    if (RoundDown(first_set, Level::k2M) != RoundDown(last_set, Level::k2M)) {
      changed |=
          vm_.tdp.WriteProtectGfn(lock, slot_.as_id, last_set, Level::k2M);
    }
    if (!changed) return;
    // MMU-writable went away: before the lock is dropped (TLB-06).
    TlbFlushBatch now(vm_.tlb, FlushScope::kRange, FlushReason::kClearDirty);
    now.Add(GfnRange{first_set, last_set + 1});
    now.Flush(cost_);
  }

  VmState& vm_;
  const Memslot& slot_;
  const DirtyLogConfig& config_;
  MmuCost* const cost_;
  TlbFlushBatch batch_;
  ClearResult result_;
};

}  // namespace

ClearResult Reprotect(VmState& vm, const Memslot& slot,
                      const DirtyLogConfig& config,
                      const std::vector<BitmapWord>& taken, MmuCost* cost) {
  return Reprotector(vm, slot, config, cost).Run(taken);
}

}  // namespace mmu
