// The MMUs of a VM, and one loop for each thing that all of them do.
//
// Whoever changes a memslot, a log or a range asks here, and not an MMU: so
// nobody else asks which MMUs a VM has. A new MMU is one more Add.
//
// The order in which an operation asks them, and why:
//
//   operation                    order           because
//   EnableLog, Recover,          last added      those of L2 and of a guest's
//   FastZapAll, ZapLeafs,        first           own tables take mmu_lock in
//   ForgetSlot, SplitForClear                    write mode and come first, so
//                                                that vCPUs' faults, which need
//                                                it in read mode, then wait no
//                                                more; results do not depend on
//                                                it
//   Split                        first added     the TDP MMU decides where a
//                                first           step ends, the others follow
//   Age                          first added     those that age fast come
//                                first           before those that do not: what
//                                                they found is WAS_FAST
//   List                         first added     positions that callers keep
//                                first           say so
//   Reprotect, WriteProtectGfn,  first added     no reason
//   SlotsChanged, Audit,         first
//   RecoverNxHugePages,
//   CollectDirty
//
// An MMU that may not map a slot is not asked about it (Mmu::MayMap).

#ifndef MMU_CORE_VM_CORE_MMU_SET_H_
#define MMU_CORE_VM_CORE_MMU_SET_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/mmu/mmu.h"

namespace mmu {

// The functions do what Mmu's of the same names do, with the same locks.
// Thread-safe but for Add and WrapForTest.
class MmuSet {
 public:
  MmuSet() = default;
  MmuSet(const MmuSet&) = delete;
  MmuSet& operator=(const MmuSet&) = delete;

  // While the VM is made; an MMU that other MMUs' tables depend on comes after
  // those.
  void Add(std::unique_ptr<Mmu> mmu) { mmus_.push_back(std::move(mmu)); }
  // Replaces each MMU by what `wrap` makes of it. Before the VM is used.
  void WrapForTest(
      const std::function<std::unique_ptr<Mmu>(std::unique_ptr<Mmu>)>& wrap);

  // Whether some MMU may map the slot.
  bool MayMap(const Memslot& slot) const;

  SplitOutcome EnableLog(const Memslot& slot, const LogPlan& plan,
                         MmuCost* cost);
  // next_gfn: where all of them have come to.
  SplitOutcome Split(const Memslot& slot, GfnRange range, const SplitPlan& plan,
                     MmuCost* cost);
  RecoverOutcome Recover(const Memslot& slot, GfnRange range, MmuCost* cost,
                         const HoldLimit& limit = {});
  void FastZapAll(LockOp op, MmuCost* cost);
  uint64_t RecoverNxHugePages(uint32_t ratio,
                              absl::FunctionRef<bool(const ShadowPage&)> keep,
                              MmuCost* cost);
  void SlotsChanged(uint64_t pages, MmuCost* cost);

  bool ZapLeafs(MmuWriteLocked& lock, const Memslot& slot, GfnRange range,
                FlushReason reason, MayYield may_yield, MmuCost* cost);
  void ForgetSlot(MmuWriteLocked& lock, const Memslot& slot, MmuCost* cost);
  SplitOutcome SplitForClear(MmuWriteLocked& lock, const Memslot& slot,
                             GfnRange range, Level target, MmuCost* cost);
  void Reprotect(MmuWriteLocked& lock, const Memslot& slot, Gfn first,
                 uint64_t mask, NoticeBy notice_by, MmuCost* cost);
  bool WriteProtectGfn(const MmuWriteLocked& lock, const Memslot& slot, Gfn gfn,
                       Level min_level);
  // In all MMUs but those of `kind`, which has done it for itself.
  bool WriteProtectGfnInOthers(MmuKind kind, const MmuWriteLocked& lock,
                               const Memslot& slot, Gfn gfn, Level min_level);

  // The first error; all are asked.
  absl::Status CollectDirty(MmuCost* cost);

  // The pages of `range` that are young in some MMU (AGE-11): an Accessed bit
  // that was left in one would make a page young at the next ageing, although
  // nobody used it since. result.was_fast: an MMU that ages fast found one. No
  // lock is required; the slots may change meanwhile.
  AgeResult Age(const MemslotSet& slots, int as_id, GfnRange range,
                AgeMode mode, MmuCost* cost) const;

  // True if it came to the end. Otherwise listing.position is where it goes on.
  bool List(ShadowPageLister& listing) const;
  void Audit(const MmuWriteLocked& lock, AuditSink& sink) const;

 private:
  std::vector<std::unique_ptr<Mmu>> mmus_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_MMU_SET_H_
