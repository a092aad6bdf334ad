// The TDP MMU as one of the MMUs of a VM.

#ifndef MMU_CORE_TDP_TDP_SLOT_OPS_H_
#define MMU_CORE_TDP_TDP_SLOT_OPS_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/mmu/mmu.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tdp/tdp_mmu.h"

namespace mmu {

// Thread-safe. Functions that take mmu_lock themselves take it in read mode.
class TdpSlotOps final : public Mmu {
 public:
  // The parts of the VM that this class uses; all outlive it.
  struct Parts {
    TdpMmu& tdp;
    MmuLock& mmu_lock;
    const Mutex& slots_lock;
    TableCache& tables;  // for splits; guarded by slots_lock
    const MmuCounters& counters;
    const NxHugePageList& nx_huge_pages;  // the TDP MMU's
  };
  explicit TdpSlotOps(const Parts& parts) : parts_(parts) {}

  MmuKind kind() const override { return MmuKind::kTdp; }
  bool MayMap(const Memslot&) const override { return true; }
  bool MayBeInUse() const override { return true; }
  AgingLock aging_lock() const override { return AgingLock::kNone; }

  SplitOutcome EnableLog(const Memslot& slot, const LogPlan& plan,
                         MmuCost* cost) override;
  SplitOutcome Split(const Memslot& slot, GfnRange range, const SplitPlan& plan,
                     MmuCost* cost) override;
  RecoverOutcome Recover(const Memslot& slot, GfnRange range, MmuCost* cost,
                         const HoldLimit& limit) override;
  void FastZapAll(LockOp op, MmuCost* cost) override;
  uint64_t RecoverNxHugePages(uint32_t ratio,
                              absl::FunctionRef<bool(const ShadowPage&)> keep,
                              MmuCost* cost) override;

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
  bool WriteProtectGfn(const MmuWriteLocked& lock, const Memslot& slot, Gfn gfn,
                       Level min_level) override;

  void Age(const MemslotTable& slots, int as_id, GfnRange range, AgeMode mode,
           AgeScan scan, AgeResult& result, MmuCost* cost) const override;
  bool List(ShadowPageLister& listing) const override;
  void Audit(const MmuWriteLocked& lock, AuditSink& sink) const override;

 private:
  const Parts parts_;
};

}  // namespace mmu

#endif  // MMU_CORE_TDP_TDP_SLOT_OPS_H_
