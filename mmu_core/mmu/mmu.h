// One of the MMUs of a VM, for those who work on a memslot and not on a fault:
// dirty logging, splits, recovery, ageing, the host's notifier, the auditor.
//
// A VM has one or several (vm/core/mmu_set.h). With nested paging the TDP MMU
// maps what L1 uses and the shadow MMU what L2 uses, so one gfn may be mapped
// by both, and every operation here is done by each.
//
// Each call does the work of one slot or range: a virtual call is never in a
// fault, a walk or a TLB hit. Those have functions of the MMU's own class.

#ifndef MMU_CORE_MMU_MMU_H_
#define MMU_CORE_MMU_MMU_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/mmu/audit_sink.h"
#include "mmu_core/mmu/huge_page_outcomes.h"
#include "mmu_core/mmu/shadow_page_lister.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// How the next write to a page is noticed once the page is re-protected.
enum class NoticeBy : uint8_t {
  kFault,   // W is taken: the write faults
  kCpuLog,  // D is taken: the processor notes the write (PML)
};

// What a slot that begins to log asks for. A value.
struct LogPlan {
  SplitPolicy split = SplitPolicy::kNone;  // kEager: to 4 KiB pages first
  NoticeBy notice_by = NoticeBy::kFault;
  HoldLimit limit;
};

// What a split asks for. A value.
struct SplitPlan {
  Level target = Level::k4K;  // k4K or k2M
  SplitTrigger trigger = SplitTrigger::kRequest;
  // The call ends when it has held mmu_lock for so long and has looked at one
  // entry at least; SplitOutcome::next_gfn tells where. Infinite: at the end of
  // the range only. An MMU with few huge pages may go on to the range's end.
  absl::Duration step = absl::InfiniteDuration();
  HoldLimit limit;
};

// Thread-safe with the locks named. All functions require the VM's slots_lock
// unless they say otherwise: it keeps the slot, and guards the tables that
// splits take. A range is a part of its slot. `cost` may be null and is added
// to.
class Mmu {
 public:
  virtual ~Mmu() = default;
  Mmu() = default;
  Mmu(const Mmu&) = delete;
  Mmu& operator=(const Mmu&) = delete;

  virtual MmuKind kind() const = 0;

  // Whether an SPTE of this MMU may map a page of the slot. If not, no function
  // below has work to do for the slot or takes a lock. Needs no lock; what
  // makes the answer true happens before the first such SPTE.
  virtual bool MayMap(const Memslot& slot) const = 0;

  // --- These take mmu_lock themselves, in the mode that they need. ---

  // The slot logs from now on (DL-02): splits its huge pages if asked to, then
  // re-protects all of its pages. The caller flushes TLBs before anybody may
  // rely on it.
  virtual SplitOutcome EnableLog(const Memslot& slot, const LogPlan& plan,
                                 MmuCost* cost) = 0;

  // Splits huge pages that overlap `range` (TDP-60..66, SHD-70). Best effort.
  virtual SplitOutcome Split(const Memslot& slot, GfnRange range,
                             const SplitPlan& plan, MmuCost* cost) = 0;

  // Puts small pages together to huge ones, or makes way for those (TDP-52,
  // SHD-82). Flushes. REQUIRES: the slot does not log.
  virtual RecoverOutcome Recover(const Memslot& slot, GfnRange range,
                                 MmuCost* cost, const HoldLimit& limit) = 0;

  // Zaps the whole VM the fast way (TDP-33, SHD-24): when it returns no vCPU
  // uses an SPTE of before the call.
  virtual void FastZapAll(LockOp op, MmuCost* cost) = 0;

  // Zaps one in `ratio`, rounded up, of the tables that were split because the
  // guest executed from them, oldest first; those for which `keep` is true are
  // only taken off the list (SPTE-53). How many were zapped. Does not require
  // slots_lock.
  virtual uint64_t RecoverNxHugePages(
      uint32_t ratio, absl::FunctionRef<bool(const ShadowPage&)> keep,
      MmuCost* cost) = 0;

  // The memslots have `pages` pages in all now: a slot was made or deleted.
  virtual void SlotsChanged(uint64_t pages, MmuCost* cost) = 0;

  // --- These work under the caller's hold, so that MMUs change as one. ---

  // Zaps every leaf that maps a page of `range`, a larger one as a whole, in
  // each root; flushes before it yields and once at the end if it zapped
  // anything (TDP-37, SHD-18). True if it did. Instead of slots_lock an
  // announced invalidation may keep the slot (SLOT-23).
  virtual bool ZapLeafs(MmuWriteLocked& lock, const Memslot& slot,
                        GfnRange range, FlushReason reason, MayYield may_yield,
                        MmuCost* cost) = 0;

  // The slot, which is invalid, goes: zaps all that maps it, and forgets what
  // else is known of it (SLOT-28). Flushes.
  virtual void ForgetSlot(MmuWriteLocked& lock, const Memslot& slot,
                          MmuCost* cost) = 0;

  // As Split, to `target`, for a clear (DL-26). May let go of the lock.
  virtual SplitOutcome SplitForClear(MmuWriteLocked& lock, const Memslot& slot,
                                     GfnRange range, Level target,
                                     MmuCost* cost) = 0;

  // Re-protects the 4 KiB leafs of the pages `first + i` of the slot whose bit
  // i is set in `mask` (DL-15). Huge leafs are left alone. The caller flushes.
  virtual void Reprotect(MmuWriteLocked& lock, const Memslot& slot, Gfn first,
                         uint64_t mask, NoticeBy notice_by, MmuCost* cost) = 0;

  // Takes W, for good, from the leafs of at least `min_level` that map `gfn`
  // (TDP-56). True if something changed: the caller flushes before it lets go
  // of the lock. An RCU read section may keep the slot instead of slots_lock.
  virtual bool WriteProtectGfn(const MmuWriteLocked& lock, const Memslot& slot,
                               Gfn gfn, Level min_level) = 0;

  // --- Before the log is sealed or counted. No lock is required. ---

  // Takes pages that were noted as dirty elsewhere, and that nobody but this
  // MMU knows of, into the open epoch of the log. An MMU whose faults and vCPUs
  // mark pages has none.
  virtual absl::Status CollectDirty(MmuCost* cost) {
    static_cast<void>(cost);
    return absl::OkStatus();
  }

  // --- Without mmu_lock, in an RCU read section. ---

  // Whether vCPUs may use anything of this MMU at present. If not, none of its
  // pages is young (AGE-10).
  virtual bool MayBeInUse() const = 0;

  // Whether it ages without waiting for anybody (AGE-32).
  virtual bool AgesFast() const = 0;

  // Tests, or tests and clears, the Accessed bits of whatever maps pages of
  // `range` of address space `as_id`, whose slots are `slots`, and adds what it
  // finds to `result`, whose bitmap of young pages covers `range`. If
  // result.mapped is not empty it is filled in, and the counts are the
  // caller's business (CountPages). No flush (AGE-16). Does not require
  // slots_lock.
  virtual void Age(const MemslotSet& slots, int as_id, GfnRange range,
                   AgeMode mode, AgeResult& result, MmuCost* cost) const = 0;

  // --- For those who look from outside. ---

  // Appends tables to listing.pages, from listing.position on, until that has
  // room for no more, the budget is used up, or there are no more: then true.
  // Holds no lock longer than for a piece of the work. Does not require
  // slots_lock.
  virtual bool List(ShadowPageLister& listing) const = 0;

  // Verifies the MMU's own invariants, and reports each leaf to `sink` for
  // those of the VM (vm/inspect/audit.h). REQUIRES: no vCPU runs; an RCU read
  // section.
  virtual void Audit(const MmuWriteLocked& lock, AuditSink& sink) const = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_MMU_MMU_H_
