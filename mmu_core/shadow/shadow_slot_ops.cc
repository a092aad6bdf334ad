#include "mmu_core/shadow/shadow_slot_ops.h"

#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/shadow_audit.h"
#include "mmu_core/shadow/shadow_page_list.h"
#include "mmu_core/shadow/shadow_zap.h"
#include "mmu_core/sync/refill.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/tlb/vcpu_gate.h"

namespace mmu {

// Releases the lock before the next MMU enables the log. A fault in between
// finds that the slot already logs.
SplitOutcome ShadowSlotOps::EnableLog(const Memslot& slot, const LogPlan& plan,
                                      MmuCost* cost) {
  parts_.slots_lock.AssertHeld();
  ShadowMmu& shadow = parts_.shadow;
  const GfnRange range = slot.range();
  SplitOutcome split;
  MmuWriteLocked lock(parts_.mmu_lock, LockOp::kEnable, cost);
  if (plan.split == SplitPolicy::kEager) {
    split = shadow.split().Split(lock, slot, range, Level::k4K,
                                 SplitTrigger::kEager, shadow.split_caches(),
                                 cost, plan.limit);
  }
  if (plan.notice_by == NoticeBy::kCpuLog) {
    shadow.log().ClearDirty(lock, slot, range, cost, plan.limit);
    shadow.log().WriteProtect(lock, slot, range, Level::k2M, cost, plan.limit);
  } else {
    shadow.log().WriteProtect(lock, slot, range, Level::k4K, cost, plan.limit);
  }
  return split;
}

// Ignores the plan's step and continues to the end of the range. The shadow MMU
// has few huge pages, and the limit of shadow pages bounds the splits: a page
// stays huge if there is no room for the shadow page that its split needs.
SplitOutcome ShadowSlotOps::Split(const Memslot& slot, GfnRange range,
                                  const SplitPlan& plan, MmuCost* cost) {
  parts_.slots_lock.AssertHeld();
  MmuWriteLocked lock(parts_.mmu_lock, LockOp::kSplit, cost);
  const int64_t locked_at = MonotonicNanos();
  SplitOutcome split = parts_.shadow.split().Split(
      lock, slot, range, plan.target, plan.trigger,
      parts_.shadow.split_caches(), cost, plan.limit);
  split.locked_at_nanos = locked_at;
  return split;
}

RecoverOutcome ShadowSlotOps::Recover(const Memslot& slot, GfnRange range,
                                      MmuCost* cost, const HoldLimit& limit) {
  MmuWriteLocked lock(parts_.mmu_lock, LockOp::kRecover, cost);
  return parts_.shadow.recover().Recover(lock, slot, range, cost, limit);
}

void ShadowSlotOps::FastZapAll(LockOp op, MmuCost* cost) {
  const Reclaim reclaim;
  MmuWriteLocked lock(parts_.mmu_lock, op, cost);
  ShadowZap& zap = parts_.shadow.pages().zap();
  zap.StartGeneration(lock);
  // After the request no vCPU walks a page of the old generation any more,
  // since roots of that generation are obsolete.
  parts_.tlb.Request(kFreeObsoleteRoots);
  zap.ZapObsolete(lock, cost);
}

uint64_t ShadowSlotOps::RecoverNxHugePages(
    uint32_t ratio, absl::FunctionRef<bool(const ShadowPage&)> keep,
    MmuCost* cost) {
  const uint64_t wanted = parts_.nx_huge_pages.ShareOf(ratio);
  if (wanted == 0) return 0;
  MmuWriteLocked lock(parts_.mmu_lock, LockOp::kRecover, cost);
  return parts_.shadow.pages().zap().RecoverNxHugePages(lock, wanted, keep,
                                                        cost);
}

void ShadowSlotOps::SlotsChanged(uint64_t pages, MmuCost* cost) {
  MmuWriteLocked lock(parts_.mmu_lock, LockOp::kMemslot, cost);
  parts_.shadow.pages().SetLimitForSlots(lock, pages, cost);
}

absl::Status ShadowSlotOps::SetShadowPageLimit(uint64_t pages, MmuCost* cost) {
  if (absl::Status s = ShadowPages::CheckLimit(pages); !s.ok()) return s;
  MmuWriteLocked lock(parts_.mmu_lock, LockOp::kZap, cost);
  parts_.shadow.pages().SetLimit(lock, pages, cost);
  return absl::OkStatus();
}

void ShadowSlotOps::GuestWrote(int as_id, Gpa gpa, int bytes,
                               GuestWords& memory, MmuCost* cost) {
  parts_.shadow.pte_writes().Written(as_id, gpa, bytes, memory, cost);
}

bool ShadowSlotOps::ZapLeafs(MmuWriteLocked& lock, const Memslot& slot,
                             GfnRange range, FlushReason reason,
                             MayYield may_yield, MmuCost* cost) {
  return parts_.shadow.unmap().ZapLeafs(lock, slot, range, reason, cost,
                                        may_yield);
}

void ShadowSlotOps::ForgetSlot(MmuWriteLocked& lock, const Memslot& slot,
                               MmuCost* cost) {
  ShadowUnmap& unmap = parts_.shadow.unmap();
  unmap.ZapLeafs(lock, slot, slot.range(), FlushReason::kZap, cost);
  unmap.ZapGuestTables(lock, slot, cost);
}

SplitOutcome ShadowSlotOps::SplitForClear(MmuWriteLocked& lock,
                                          const Memslot& slot, GfnRange range,
                                          Level target, MmuCost* cost) {
  parts_.slots_lock.AssertHeld();
  return parts_.shadow.split().Split(lock, slot, range, target,
                                     SplitTrigger::kClear,
                                     parts_.shadow.split_caches(), cost);
}

void ShadowSlotOps::Reprotect(MmuWriteLocked& lock, const Memslot& slot,
                              absl::Span<const PageMask> pages,
                              NoticeBy notice_by, AlsoProtected& /*also*/,
                              MmuCost* cost) {
  for (const auto& [first, mask] : pages) {
    if (notice_by == NoticeBy::kCpuLog) {
      parts_.shadow.log().ClearDirtyMasked(lock, slot, first, mask, cost);
    } else {
      parts_.shadow.log().WriteProtectMasked(lock, slot, first, mask, cost);
    }
  }
}

bool ShadowSlotOps::WriteProtectGfn(const MmuWriteLocked& lock,
                                    const Memslot& slot, Gfn gfn,
                                    Level min_level) {
  return parts_.shadow.pages().links().WriteProtectGfn(
      lock, *slot.shadow_rmaps(), gfn, min_level);
}

void ShadowSlotOps::Age(const MemslotTable& slots, int as_id, GfnRange range,
                        AgeMode mode, AgeScan, AgeResult& result,
                        MmuCost* cost) const {
  for (const Memslot* slot : slots.Active(as_id).SlotsIn(range)) {
    parts_.shadow.age().Age(*slot, range.Intersect(slot->range()), range, mode,
                            result, cost);
  }
}

bool ShadowSlotOps::List(ShadowPageLister& listing) const {
  return ListShadowMmuPages(parts_.mmu_lock, parts_.shadow.pages().set(),
                            listing);
}

void ShadowSlotOps::Audit(const MmuWriteLocked& lock, AuditSink& sink) const {
  AuditShadow(lock, parts_.shadow.pages(), parts_.shadow.parts(),
              &parts_.nx_huge_pages, sink);
}

}  // namespace mmu
