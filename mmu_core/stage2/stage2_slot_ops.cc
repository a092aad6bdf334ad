#include "mmu_core/stage2/stage2_slot_ops.h"

#include <bit>
#include <optional>

#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/stage2/stage2_age.h"
#include "mmu_core/stage2/stage2_audit.h"
#include "mmu_core/stage2/stage2_dirty.h"
#include "mmu_core/stage2/stage2_list.h"
#include "mmu_core/stage2/stage2_log.h"
#include "mmu_core/stage2/stage2_recover.h"
#include "mmu_core/stage2/stage2_unmap.h"
#include "mmu_core/sync/hold_clock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {

template <TableGeometry G>
uint64_t Stage2SlotOps<G>::ChunkOf(SplitTrigger trigger) const {
  const uint64_t chunk = parts_.chunk_bytes.load(std::memory_order_relaxed);
  if (chunk != 0 || trigger != SplitTrigger::kRequest) return chunk;
  return BytesPer<G>(Level{2});
}

// The order is the opposite of the TDP MMU's (DL-05): each block is protected
// and flushed first, and then split. A split copies the rights of the block, so
// its pages are protected, too.
template <TableGeometry G>
SplitOutcome Stage2SlotOps<G>::EnableLog(const Memslot& slot,
                                         const LogPlan& plan, MmuCost* cost) {
  parts_.slots.slots_lock.AssertHeld();
  const Stage2State<G>& stage2 = parts_.stage2;
  MmuWriteLocked lock(stage2.parts.lock, LockOp::kEnable, cost);
  WriteProtectStage2(stage2, lock, slot.range(), cost, plan.limit);
  const uint64_t chunk = ChunkOf(SplitTrigger::kEager);
  if (plan.split != SplitPolicy::kEager || chunk == 0) return {};
  TlbFlushBatch batch(stage2.parts.tlb, FlushScope::kRange,
                      FlushReason::kWriteProtect);
  batch.Add(slot.range());
  batch.Flush(cost);
  SplitOutcome split = SplitStage2(stage2, lock, slot.range(),
                                   {.target = Level{1},
                                    .trigger = SplitTrigger::kEager,
                                    .chunk_bytes = chunk,
                                    .limit = plan.limit},
                                   tables_, cost);
  // The split has invalidated what it has changed.
  split.flushed = true;
  return split;
}

template <TableGeometry G>
SplitOutcome Stage2SlotOps<G>::Split(const Memslot& slot, GfnRange range,
                                     const SplitPlan& plan, MmuCost* cost) {
  parts_.slots.slots_lock.AssertHeld();
  const Stage2State<G>& stage2 = parts_.stage2;
  const uint64_t chunk = ChunkOf(plan.trigger);
  SplitOutcome split;
  {
    MmuWriteLocked lock(stage2.parts.lock, LockOp::kSplit, cost);
    const int64_t locked_at = MonotonicNanos();
    const int64_t deadline =
        plan.step == absl::InfiniteDuration()
            ? 0
            : HoldNanos() + absl::ToInt64Nanoseconds(plan.step);
    split = SplitStage2(stage2, lock, range.Intersect(slot.range()),
                        {.target = plan.target,
                         .trigger = plan.trigger,
                         .chunk_bytes = chunk,
                         .deadline_nanos = deadline,
                         .limit = plan.limit},
                        tables_, cost);
    split.locked_at_nanos = locked_at;
  }
  // The end of a log frees the stock (FreeSplitTables). Without a log nobody
  // else would (ARM-30).
  if (!slot.dirty_log_enabled()) tables_.Clear();
  return split;
}

template <TableGeometry G>
RecoverOutcome Stage2SlotOps<G>::Recover(const Memslot& slot, GfnRange range,
                                         MmuCost* cost,
                                         const HoldLimit& limit) {
  MmuWriteLocked lock(parts_.stage2.parts.lock, LockOp::kRecover, cost);
  return MakeWayForBlocks(parts_.stage2, lock, slot, range, cost, limit);
}

template <TableGeometry G>
void Stage2SlotOps<G>::FastZapAll(LockOp op, MmuCost* cost) {
  parts_.slots.slots_lock.AssertHeld();
  const Stage2State<G>& stage2 = parts_.stage2;
  MmuWriteLocked lock(stage2.parts.lock, op, cost);
  if (!stage2.options.NotesWrites()) {
    UnmapStage2(stage2, lock, /*slot=*/nullptr, kAllGfns, FlushReason::kZap,
                MayYield::kYes, cost);
    return;
  }
  // Slot by slot, so that the notes of each go into its log. Every leaf is in a
  // slot, also in one that is being deleted.
  for (const Memslot* slot : parts_.slots.Active(/*as_id=*/0).slots()) {
    UnmapStage2(stage2, lock, slot, slot->range(), FlushReason::kZap,
                MayYield::kYes, cost);
  }
}

template <TableGeometry G>
void Stage2SlotOps<G>::FreeSplitTables() {
  parts_.slots.slots_lock.AssertHeld();
  tables_.Clear();
}

template <TableGeometry G>
bool Stage2SlotOps<G>::ZapLeafs(MmuWriteLocked& lock, const Memslot& slot,
                                GfnRange range, FlushReason reason,
                                MayYield may_yield, MmuCost* cost) {
  return UnmapStage2(parts_.stage2, lock, &slot, range, reason, may_yield,
                     cost);
}

template <TableGeometry G>
void Stage2SlotOps<G>::ForgetSlot(MmuWriteLocked& lock, const Memslot& slot,
                                  MmuCost* cost) {
  ZapLeafs(lock, slot, slot.range(), FlushReason::kZap, MayYield::kYes, cost);
}

template <TableGeometry G>
SplitOutcome Stage2SlotOps<G>::SplitForClear(MmuWriteLocked& lock,
                                             const Memslot&, GfnRange range,
                                             Level target, MmuCost* cost) {
  parts_.slots.slots_lock.AssertHeld();
  const uint64_t chunk = ChunkOf(SplitTrigger::kClear);
  if (chunk == 0) return {};
  return SplitStage2(parts_.stage2, lock, range,
                     {.target = target,
                      .trigger = SplitTrigger::kClear,
                      .chunk_bytes = chunk,
                      .limit = {}},
                     tables_, cost);
}

// The pages between the first and the last of a word are protected with them
// (DL-17). They stay clean: their next write faults and marks them.
template <TableGeometry G>
void Stage2SlotOps<G>::Reprotect(MmuWriteLocked& lock, const Memslot& slot,
                                 absl::Span<const PageMask> pages, NoticeBy,
                                 AlsoProtected& also, MmuCost* cost) {
  for (const PageMask& word : pages) {
    also.BeginWord(word);
    const GfnRange range = {word.first + std::countr_zero(word.mask),
                            word.first + (64 - std::countl_zero(word.mask))};
    ReprotectStage2(parts_.stage2, lock, slot, range, word, also, cost);
  }
}

template <TableGeometry G>
absl::Status Stage2SlotOps<G>::CollectDirty(MmuCost* cost) {
  if (!parts_.stage2.options.NotesWrites()) return absl::OkStatus();
  // A slot that goes or moves meanwhile marks the writes noted so far itself,
  // since its mappings go.
  Gfn from(0);
  while (const std::optional<Memslot> slot = NextSlot(from)) {
    if (slot->dirty_log_enabled()) {
      CollectNotedWrites(parts_.stage2, *slot, cost);
    }
    from = slot->range().end;
  }
  return absl::OkStatus();
}

template <TableGeometry G>
std::optional<Memslot> Stage2SlotOps<G>::NextSlot(Gfn from) const {
  RcuReadGuard rcu;
  const SlotRange slots =
      parts_.slots.Active(/*as_id=*/0).SlotsIn({from, kAllGfns.end});
  if (slots.begin() == slots.end()) return std::nullopt;
  return **slots.begin();
}

template <TableGeometry G>
void Stage2SlotOps<G>::Age(const MemslotTable&, int, GfnRange range,
                           AgeMode mode, AgeScan, AgeResult& result,
                           MmuCost* cost) const {
  if (aging_lock() == AgingLock::kNone) {
    AgeStage2Lockless(parts_.stage2, range, mode, result, cost);
    return;
  }
  MmuWriteLocked lock(parts_.stage2.parts.lock, LockOp::kAge, cost);
  AgeStage2(parts_.stage2, lock, range, mode, result, cost);
}

template <TableGeometry G>
bool Stage2SlotOps<G>::List(ShadowPageLister& listing) const {
  return ListStage2Pages(parts_.stage2, listing);
}

template <TableGeometry G>
void Stage2SlotOps<G>::Audit(const MmuWriteLocked& lock,
                             AuditSink& sink) const {
  AuditStage2(lock, parts_.stage2, sink);
}

template class Stage2SlotOps<Arm4K>;
template class Stage2SlotOps<Arm16K>;
template class Stage2SlotOps<Arm64K>;

}  // namespace mmu
