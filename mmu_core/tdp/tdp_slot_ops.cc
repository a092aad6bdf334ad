#include "mmu_core/tdp/tdp_slot_ops.h"

#include <algorithm>

#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/sync/hold_clock.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/tdp/tdp_audit.h"
#include "mmu_core/tdp/tdp_page_list.h"
#include "mmu_core/tdp/tdp_root.h"

namespace mmu {
namespace {

// The number of tables to have ready for a split of `range`: one for the 1 GiB
// page, and one per 2 MiB page as far as the cache has room.
int TablesFor(GfnRange range) {
  return 1 +
         static_cast<int>(std::min<uint64_t>(
             range.pages() / PagesPer(Level::k2M), TableCache::kCapacity - 1));
}

}  // namespace

SplitOutcome TdpSlotOps::EnableLog(const Memslot& slot, const LogPlan& plan,
                                   MmuCost* cost) {
  parts_.slots_lock.AssertHeld();
  TdpMmu& tdp = parts_.tdp;
  const GfnRange range = slot.range();
  SplitOutcome split;
  MmuReadLocked lock(parts_.mmu_lock, LockOp::kEnable, cost);
  if (plan.split == SplitPolicy::kEager) {
    split = tdp.Split(lock, slot.as_id, range, Level::k4K, SplitTrigger::kEager,
                      parts_.tables, /*deadline_nanos=*/0, cost, plan.limit);
  }
  // After the split, so that the small entries decide whether to flush
  // (TDP-65). MMU-writable stays, so the flush may come without the lock
  // (DL-03).
  if (plan.notice_by == NoticeBy::kCpuLog) {
    tdp.ClearDirty(lock, slot.as_id, range, cost, plan.limit);
    // For a huge page the processor would log only one small page.
    tdp.WriteProtect(lock, slot.as_id, range, Level::k2M, cost, plan.limit);
  } else {
    tdp.WriteProtect(lock, slot.as_id, range, Level::k4K, cost, plan.limit);
  }
  return split;
}

SplitOutcome TdpSlotOps::Split(const Memslot& slot, GfnRange range,
                               const SplitPlan& plan, MmuCost* cost) {
  parts_.slots_lock.AssertHeld();
  // Filled before the lock is taken. If there are no tables, the split itself
  // reports that.
  static_cast<void>(parts_.tables.TryTopUp(TablesFor(range)));
  MmuReadLocked lock(parts_.mmu_lock, LockOp::kSplit, cost);
  const int64_t locked_at = MonotonicNanos();
  const int64_t deadline =
      plan.step == absl::InfiniteDuration()
          ? 0
          : HoldNanos() + absl::ToInt64Nanoseconds(plan.step);
  SplitOutcome split =
      parts_.tdp.Split(lock, slot.as_id, range, plan.target, plan.trigger,
                       parts_.tables, deadline, cost, plan.limit);
  split.locked_at_nanos = locked_at;
  return split;
}

RecoverOutcome TdpSlotOps::Recover(const Memslot& slot, GfnRange range,
                                   MmuCost* cost, const HoldLimit& limit) {
  MmuReadLocked lock(parts_.mmu_lock, LockOp::kRecover, cost);
  return parts_.tdp.Recover(lock, slot, range, cost, limit);
}

void TdpSlotOps::FastZapAll(LockOp op, MmuCost* cost) {
  parts_.tdp.FastZapAll(cost, op);
}

uint64_t TdpSlotOps::RecoverNxHugePages(
    uint32_t ratio, absl::FunctionRef<bool(const ShadowPage&)> keep,
    MmuCost* cost) {
  const uint64_t wanted = parts_.nx_huge_pages.ShareOf(ratio);
  if (wanted == 0) return 0;
  MmuReadLocked lock(parts_.mmu_lock, LockOp::kRecover, cost);
  return parts_.tdp.RecoverNxHugePages(lock, wanted, keep, cost);
}

bool TdpSlotOps::ZapLeafs(MmuWriteLocked& lock, const Memslot& slot,
                          GfnRange range, FlushReason reason,
                          MayYield may_yield, MmuCost* cost) {
  return parts_.tdp.ZapLeafs(lock, slot.as_id, range, RootFilter::kAll, reason,
                             cost, may_yield);
}

void TdpSlotOps::ForgetSlot(MmuWriteLocked& lock, const Memslot& slot,
                            MmuCost* cost) {
  ZapLeafs(lock, slot, slot.range(), FlushReason::kZap, MayYield::kYes, cost);
}

SplitOutcome TdpSlotOps::SplitForClear(MmuWriteLocked& lock,
                                       const Memslot& slot, GfnRange range,
                                       Level target, MmuCost* cost) {
  parts_.slots_lock.AssertHeld();
  return parts_.tdp.Split(lock, slot.as_id, range, target, SplitTrigger::kClear,
                          parts_.tables, /*deadline_nanos=*/0, cost);
}

void TdpSlotOps::Reprotect(MmuWriteLocked& lock, const Memslot& slot,
                           absl::Span<const PageMask> pages, NoticeBy notice_by,
                           AlsoProtected& /*also*/, MmuCost* cost) {
  for (const auto& [first, mask] : pages) {
    if (notice_by == NoticeBy::kCpuLog) {
      parts_.tdp.ClearDirtyMasked(lock, slot.as_id, first, mask, cost);
    } else {
      parts_.tdp.WriteProtectMasked(lock, slot.as_id, first, mask, cost);
    }
  }
}

bool TdpSlotOps::WriteProtectGfn(const MmuWriteLocked& lock,
                                 const Memslot& slot, Gfn gfn,
                                 Level min_level) {
  return parts_.tdp.WriteProtectGfn(lock, slot.as_id, gfn, min_level);
}

void TdpSlotOps::Age(const MemslotTable&, int as_id, GfnRange range,
                     AgeMode mode, AgeScan scan, AgeResult& result,
                     MmuCost* cost) const {
  parts_.tdp.Age(as_id, range, mode, scan, result, cost);
}

bool TdpSlotOps::List(ShadowPageLister& listing) const {
  return ListTdpPages(parts_.tdp.roots(), listing);
}

void TdpSlotOps::Audit(const MmuWriteLocked& lock, AuditSink& sink) const {
  AuditTdp(lock, parts_.tdp, parts_.counters, parts_.nx_huge_pages, sink);
}

}  // namespace mmu
