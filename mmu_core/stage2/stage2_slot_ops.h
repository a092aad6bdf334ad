// The stage-2 MMU as one of the MMUs of a VM.

#ifndef MMU_CORE_STAGE2_STAGE2_SLOT_OPS_H_
#define MMU_CORE_STAGE2_STAGE2_SLOT_OPS_H_

#include <atomic>
#include <cstdint>
#include <optional>

#include "mmu_core/base/table_geometry.h"
#include "mmu_core/memory/memslot_table.h"
#include "mmu_core/mmu/mmu.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stage2/stage2_split.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// All operations take mmu_lock in write mode (ARM-03), but for ageing if the
// hardware sets AF. Thread-safe.
template <TableGeometry G>
class Stage2SlotOps final : public Mmu {
 public:
  // The parts of the VM that this class uses; all outlive it.
  struct Parts {
    Stage2State<G>& stage2;
    const MemslotTable& slots;
    // The size of a piece of an eager split; 0: off (ARM-20). Set under
    // slots_lock.
    const std::atomic<uint64_t>& chunk_bytes;
  };
  explicit Stage2SlotOps(const Parts& parts)
      : parts_(parts), tables_(S2Pool<G>::Process()) {}

  MmuKind kind() const override { return MmuKind::kStage2; }
  bool MayMap(const Memslot&) const override { return true; }
  bool MayBeInUse() const override { return true; }
  AgingLock aging_lock() const override {
    return parts_.stage2.options.SetsAccessFlag() ? AgingLock::kNone
                                                  : AgingLock::kWrite;
  }
  bool FlushesAged() const override { return true; }
  bool ProtectsBeforeSplit() const override { return true; }

  SplitOutcome EnableLog(const Memslot& slot, const LogPlan& plan,
                         MmuCost* cost) override;
  SplitOutcome Split(const Memslot& slot, GfnRange range, const SplitPlan& plan,
                     MmuCost* cost) override;
  RecoverOutcome Recover(const Memslot& slot, GfnRange range, MmuCost* cost,
                         const HoldLimit& limit) override;
  void FastZapAll(LockOp op, MmuCost* cost) override;
  void FreeSplitTables() override;

  bool ZapLeafs(MmuWriteLocked& lock, const Memslot& slot, GfnRange range,
                FlushReason reason, MayYield may_yield, MmuCost* cost) override;
  void ForgetSlot(MmuWriteLocked& lock, const Memslot& slot,
                  MmuCost* cost) override;
  SplitOutcome SplitForClear(MmuWriteLocked& lock, const Memslot& slot,
                             GfnRange range, Level target,
                             MmuCost* cost) override;
  void Reprotect(MmuWriteLocked& lock, const Memslot& slot,
                 absl::Span<const PageMask> pages, NoticeBy notice_by,
                 AlsoProtected& also, MmuCost* cost) override;

  absl::Status CollectDirty(MmuCost* cost) override;

  void Age(const MemslotTable& slots, int as_id, GfnRange range, AgeMode mode,
           AgeScan scan, AgeResult& result, MmuCost* cost) const override;
  bool List(ShadowPageLister& listing) const override;
  void Audit(const MmuWriteLocked& lock, AuditSink& sink) const override;

 private:
  // The slot with the lowest gfns that ends behind `from`.
  std::optional<Memslot> NextSlot(Gfn from) const;
  // Pieces of the smallest block if eager splitting is off: for a split that a
  // caller asks for by name.
  uint64_t ChunkOf(SplitTrigger trigger) const;

  const Parts parts_;
  // For splits; guarded by slots_lock. What is left stays for the next split of
  // a slot that logs (ARM-30).
  S2Cache<G> tables_;
};

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_STAGE2_SLOT_OPS_H_
