#include "mmu_core/vm/logging/reprotect.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>

#include "mmu_core/base/bits.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/mmu/mmu.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tlb/tlb_flush_batch.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {
namespace {

constexpr int kWindowsPerLook = 16;
// The number of words that one call to the MMUs handles: enough that the cost
// of the call does not matter, and few enough for the limit of a hold.
constexpr size_t kWordsPerGroup = 8;

// Logging began without write-protection, so these pages may still be inside
// writable huge pages. The split may release the lock, because the pages to be
// protected are in no bitmap any more (DL-27).
void SplitForClear(VmCore& vm, MmuWriteLocked& lock, const Memslot& slot,
                   GfnRange range, ClearResult* result, MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  const SplitOutcome split =
      vm.mmus.SplitForClear(lock, slot, range, Level::k4K, cost);
  result->split_2m_count += split.split_2m_count;
  result->split_1g_count += split.split_1g_count;
}

// Write-protects the huge pages that are left in a range of 64 pages at most
// (DL-15).
void ProtectHuge(VmCore& vm, MmuWriteLocked& lock, const Memslot& slot,
                 GfnRange range, MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  const Gfn first = range.start;
  const Gfn last = range.end - 1;
  bool changed = vm.mmus.WriteProtectGfn(lock, slot, first, Level::k2M);
  if (RoundDown(first, Level::k2M) != RoundDown(last, Level::k2M)) {
    changed |= vm.mmus.WriteProtectGfn(lock, slot, last, Level::k2M);
  }
  if (!changed) return;
  // MMU-writable was cleared: flush before the lock is dropped (TLB-06).
  TlbFlushBatch now(vm.tlb, FlushScope::kRange, FlushReason::kClearDirty);
  now.Add(range);
  now.Flush(cost);
}

}  // namespace

void ReprotectPace::YieldIfDue(int windows) {
  windows_ += windows;
  const bool look = windows_ >= kWindowsPerLook;
  if (look) windows_ = 0;
  if (watch_.IsOver() || (look && lock_.NeedYield())) lock_.Yield();
}

void ReprotectPages(VmCore& vm, MmuWriteLocked& lock, const Memslot& slot,
                    const SlotLogConfig& config,
                    absl::Span<const PageMask> pages, AlsoProtected& also,
                    ClearResult* result, MmuCost* cost) {
  const auto protect = [&] {
    vm.mmus.Reprotect(lock, slot, pages, vm.notice_by(), also, cost);
  };
  const bool protects_first = vm.mmus.ProtectsBeforeSplit();
  if (protects_first) protect();
  const bool huge = config.initially_set == InitiallySet::kYes;
  for (const auto& [first, mask] : pages) {
    result->cleared_page_count += CountBits(mask);
    if (!huge) continue;
    const GfnRange range = {first + std::countr_zero(mask),
                            first + (64 - std::countl_zero(mask))};
    if (config.split == SplitPolicy::kOnClear) {
      SplitForClear(vm, lock, slot, range, result, cost);
    }
    ProtectHuge(vm, lock, slot, range, cost);
  }
  if (!protects_first) protect();
}

ClearResult Reprotect(VmCore& vm, const Memslot& slot,
                      const SlotLogConfig& config,
                      const std::vector<BitmapWord>& taken, MmuCost* cost) {
  ClearResult result;
  if (taken.empty()) return result;
  TlbFlushBatch batch(vm.tlb, FlushScope::kRange, FlushReason::kClearDirty);
  AlsoProtected also;
  AtHook(HookPoint::kTakeToProtect);
  {
    MmuWriteLocked lock(vm.mmu_lock, LockOp::kClear, cost);
    ReprotectPace pace(lock);
    // If huge pages may still be writable, each word may need a flush under the
    // lock (ProtectHuge). So the hold is checked before each word.
    const size_t group_size =
        config.initially_set == InitiallySet::kYes ? 1 : kWordsPerGroup;
    std::array<PageMask, kWordsPerGroup> group;
    for (size_t begin = 0; begin < taken.size(); begin += group_size) {
      const size_t count = std::min(group_size, taken.size() - begin);
      for (size_t i = 0; i < count; ++i) {
        const BitmapWord& word = taken[begin + i];
        group[i] = {slot.base_gfn + word.index * 64, word.bits};
        batch.Add(GfnRange::Of(group[i].first, 64));
      }
      pace.YieldIfDue(static_cast<int>(count));
      ReprotectPages(vm, lock, slot, config, {group.data(), count}, also,
                     &result, cost);
    }
  }
  result.also_protected_page_count = also.pages();
  // Without the lock: leafs that lost only W are still MMU-writable, which
  // means that a TLB may allow more than the tables (TLB-05, TLB-08).
  AtHook(HookPoint::kProtectToFlush);
  batch.Flush(cost);
  return result;
}

}  // namespace mmu
