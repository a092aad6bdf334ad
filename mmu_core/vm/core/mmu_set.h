// The MMUs of a VM, and one loop for each operation that all of them perform.
//
// Code that changes a memslot, a log or a range calls this class, not an MMU;
// so no other code depends on which MMUs a VM has.
//
// A new MMU is a class and one more Add. A new kind of MMU has a value of
// MmuKind and a label for it (stats/labels.h), which give it counters and
// metrics of its own. The API names it in PageTableKind, and in
// AgeRangeResponse if it ages; server/convert maps the kinds to these.
//
// The order in which an operation calls the MMUs, and why:
//
//   operation                    order           because
//   EnableLog, Recover,          last added      the shadow MMU (L2, or a
//   FastZapAll, ZapLeafs,        first           guest's own tables) takes
//   ForgetSlot, SplitForClear                    mmu_lock in write mode and
//                                                comes first; vCPUs' faults,
//                                                which need it in read mode,
//                                                then wait no more. Results do
//                                                not depend on the order
//   Split                        first added     the TDP MMU decides where a
//                                first           step ends, the others follow
//   Age                          first added     MMUs that age fast come before
//                                first           those that do not: what they
//                                                found is WAS_FAST, and a test
//                                                may end there
//   List                         first added     saved positions of callers
//                                first           depend on it
//   Reprotect, WriteProtectGfn,  first added     no reason
//   SlotsChanged, Audit,         first
//   FreeSplitTables,
//   RecoverNxHugePages,
//   CollectDirty, GuestWrote,
//   SetShadowPageLimit
//
// An MMU that cannot map a slot is not called for it (Mmu::MayMap).

#ifndef MMU_CORE_VM_CORE_MMU_SET_H_
#define MMU_CORE_VM_CORE_MMU_SET_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/mmu/mmu.h"
#include "mmu_core/stats/labels.h"

namespace mmu {

// The functions call Mmu's functions of the same names, with the same locks.
// Thread-safe except Add and WrapForTest.
class MmuSet {
 public:
  MmuSet() = default;
  MmuSet(const MmuSet&) = delete;
  MmuSet& operator=(const MmuSet&) = delete;

  static constexpr size_t kMaxMmus = 4;

  // Called while the VM is made. An MMU on which other MMUs' tables depend
  // comes after those. REQUIRES: fewer than kMaxMmus so far; kinds ascend, as
  // positions of a listing do.
  void Add(std::unique_ptr<Mmu> mmu);
  // Replaces each MMU by the result of `wrap`. Called before the VM is used.
  void WrapForTest(
      const std::function<std::unique_ptr<Mmu>(std::unique_ptr<Mmu>)>& wrap);

  // In the order in which they were added.
  std::vector<MmuKind> Kinds() const;

  SplitOutcome EnableLog(const Memslot& slot, const LogPlan& plan,
                         MmuCost* cost);
  // next_gfn: the position that all MMUs have reached.
  SplitOutcome Split(const Memslot& slot, GfnRange range, const SplitPlan& plan,
                     MmuCost* cost);
  RecoverOutcome Recover(const Memslot& slot, GfnRange range, MmuCost* cost,
                         const HoldLimit& limit = {});
  void FastZapAll(LockOp op, MmuCost* cost);
  uint64_t RecoverNxHugePages(uint32_t ratio,
                              absl::FunctionRef<bool(const ShadowPage&)> keep,
                              MmuCost* cost);
  void SlotsChanged(uint64_t pages, MmuCost* cost);
  void FreeSplitTables();
  // 0: no MMU has a limit of shadow pages.
  uint64_t shadow_page_limit() const;
  // Calls the MMUs that have a limit; returns the first error.
  absl::Status SetShadowPageLimit(uint64_t pages, MmuCost* cost);
  void GuestWrote(int as_id, Gpa gpa, int bytes, GuestWords& memory,
                  MmuCost* cost);

  bool ZapLeafs(MmuWriteLocked& lock, const Memslot& slot, GfnRange range,
                FlushReason reason, MayYield may_yield, MmuCost* cost);
  void ForgetSlot(MmuWriteLocked& lock, const Memslot& slot, MmuCost* cost);
  SplitOutcome SplitForClear(MmuWriteLocked& lock, const Memslot& slot,
                             GfnRange range, Level target, MmuCost* cost);
  void Reprotect(MmuWriteLocked& lock, const Memslot& slot,
                 absl::Span<const PageMask> pages, NoticeBy notice_by,
                 AlsoProtected& also, MmuCost* cost);
  // True if one of the MMUs says so.
  bool ProtectsBeforeSplit() const;
  bool FlushesAged() const;

  bool WriteProtectGfn(const MmuWriteLocked& lock, const Memslot& slot, Gfn gfn,
                       Level min_level);
  // In all MMUs except that of `kind`, which has done it itself.
  bool WriteProtectGfnInOthers(MmuKind kind, const MmuWriteLocked& lock,
                               const Memslot& slot, Gfn gfn, Level min_level);

  // Calls all MMUs; returns the first error.
  absl::Status CollectDirty(MmuCost* cost);

  // Whether one of the MMUs ages fast. If not, a fast-only request does no work
  // (AGE-34).
  bool AgesFast() const;
  // Of the MMU of this kind, which the VM has.
  AgingLock aging_lock(MmuKind kind) const;
  // The pages of `range` that are young in an MMU that was asked, and which
  // MMUs these were (result.reach). A full request asks all MMUs, and a clear
  // clears in all: an Accessed bit left in one would make a page young at the
  // next ageing although it was not used since (AGE-11, AGE-31). No lock is
  // required; the slots may change meanwhile. Not inside an RCU section. With
  // KeepMapped::kYes the result has a bitmap of mapped pages, unless it is
  // refused.
  AgeResult Age(const MemslotTable& slots, int as_id, GfnRange range,
                AgeMode mode, const AgeOptions& options, MmuCost* cost,
                KeepMapped keep_mapped = KeepMapped::kNo) const;

  // True if it reached the end. Otherwise listing.position is where to
  // continue.
  bool List(ShadowPageLister& listing) const;
  void Audit(const MmuWriteLocked& lock, AuditSink& sink) const;

 private:
  std::vector<std::unique_ptr<Mmu>> mmus_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_MMU_SET_H_
