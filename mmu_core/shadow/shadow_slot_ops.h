// The shadow MMU as one of the MMUs of a VM.

#ifndef MMU_CORE_SHADOW_SHADOW_SLOT_OPS_H_
#define MMU_CORE_SHADOW_SHADOW_SLOT_OPS_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/mmu/mmu.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tlb/remote_flush.h"

namespace mmu {

// Thread-safe. Functions that take mmu_lock themselves take it in write mode.
class ShadowSlotOps final : public Mmu {
 public:
  // The MMU that the guest itself runs on.
  enum class Guest : uint8_t {
    kOnTdp,     // the shadow MMU maps L2, if there is one
    kOnShadow,  // the shadow MMU maps everything
  };
  // The parts of the VM that this class uses; all outlive it.
  struct Parts {
    ShadowMmu& shadow;
    MmuLock& mmu_lock;
    const Mutex& slots_lock;
    RemoteTlb& tlb;
    const NxHugePageList& nx_huge_pages;  // the shadow MMU's
    Guest guest = Guest::kOnTdp;
  };
  explicit ShadowSlotOps(const Parts& parts) : parts_(parts) {}

  MmuKind kind() const override { return MmuKind::kShadow; }
  // Every leaf has an rmap, and a slot's rmaps are made before its first leaf.
  bool MayMap(const Memslot& slot) const override {
    return slot.shadow_rmaps() != nullptr;
  }
  // L1's tables for L2 have shadow pages as long as L2 may run on them.
  bool MayBeInUse() const override {
    return parts_.guest == Guest::kOnShadow ||
           parts_.shadow.pages().tracking().AnyIndirectPages();
  }
  // A thread that changes an rmap holds its bit, and may be preempted
  // meanwhile.
  AgingLock aging_lock() const override { return AgingLock::kRmap; }
  bool MapsPagesOnce() const override { return false; }

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
  void SlotsChanged(uint64_t pages, MmuCost* cost) override;
  uint64_t shadow_page_limit() const override {
    return parts_.shadow.pages().limit();
  }
  absl::Status SetShadowPageLimit(uint64_t pages, MmuCost* cost) override;
  void GuestWrote(int as_id, Gpa gpa, int bytes, GuestWords& memory,
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

#endif  // MMU_CORE_SHADOW_SHADOW_SLOT_OPS_H_
