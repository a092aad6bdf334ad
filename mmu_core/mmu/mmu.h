// One of the MMUs of a VM, for operations on a memslot rather than on a fault:
// dirty logging, splits, recovery, ageing, the host's notifier, the auditor.
//
// A VM has one or several (vm/core/mmu_set.h). With nested paging the TDP MMU
// maps L1's memory and the shadow MMU L2's, so both may map one gfn, and each
// performs every operation here.
//
// Each call works on one slot or range, or on a word whose write was emulated.
// So no virtual call is in a fault, a walk or a TLB hit: those use functions of
// the MMU's own class.
//
// A Level in a parameter counts from the leaf up: 1 is the level of the
// smallest leafs. An MMU whose tables have another geometry than x86's goes by
// the number, not by the size in the name (base/table_geometry.h).
//
// Only CollectDirty and SetShadowPageLimit return a Status. Today's MMUs work
// on the memory of this process. Their other operations fail only for lack of
// tables or of memory, which SplitOutcome and RecoverOutcome count. An MMU
// whose operations can fail as a whole, for example because it works on the
// memory of another process, adds a Status to the outcomes.

#ifndef MMU_CORE_MMU_MMU_H_
#define MMU_CORE_MMU_MMU_H_

#include <algorithm>
#include <bit>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_table.h"
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

// How the next write to a page is detected once the page is re-protected.
enum class NoticeBy : uint8_t {
  kFault,   // W is cleared: the write faults
  kCpuLog,  // D is cleared: the processor logs the write (PML)
};

// The pages `first + i` whose bit i is set in `mask`. A value.
struct PageMask {
  Gfn first;
  uint64_t mask = 0;

  bool Has(Gfn gfn) const {
    const uint64_t bit = gfn - first;
    return gfn >= first && bit < 64 && (mask >> bit & 1) != 0;
  }
  // How many of the pages lie in `range`.
  uint64_t CountIn(GfnRange range) const {
    const GfnRange both = GfnRange::Of(first, 64).Intersect(range);
    if (both.empty()) return 0;
    const uint64_t bits = ~uint64_t{0} >> (64 - both.pages());
    return static_cast<uint64_t>(
        std::popcount(mask & bits << (both.start - first)));
  }
};

// Counts the pages that a clear protects besides those that it clears, because
// an MMU protects more at a time than a page. The words of cleared pages come
// in ascending order. A value.
class AlsoProtected {
 public:
  // To be called for each word, before its leafs are protected. A leaf of an
  // earlier word may have pages of this word: those are cleared, too.
  void BeginWord(const PageMask& cleared) {
    pages_ -= cleared.CountIn({Gfn(0), until_});
  }
  // The leaf that maps `leaf` is protected for that word.
  void Add(GfnRange leaf, const PageMask& cleared) {
    pages_ += leaf.pages() - cleared.CountIn(leaf);
    // Not the end of this leaf: if the guest splits a block meanwhile, a later
    // leaf ends earlier.
    until_ = std::max(until_, leaf.end);
  }
  uint64_t pages() const { return pages_; }

 private:
  uint64_t pages_ = 0;
  Gfn until_ = Gfn(0);  // the greatest end of a leaf
};

// The parameters of a slot that begins to log. A value.
struct LogPlan {
  SplitPolicy split = SplitPolicy::kNone;  // kEager: to 4 KiB pages first
  NoticeBy notice_by = NoticeBy::kFault;
  HoldLimit limit;
};

// The parameters of a split. A value.
struct SplitPlan {
  Level target = Level::k4K;  // level 1 or 2
  SplitTrigger trigger = SplitTrigger::kRequest;
  // The call ends once it has held mmu_lock for this long and has visited at
  // least one entry; SplitOutcome::next_gfn is its position. Infinite: it ends
  // only at the end of the range. An MMU with few huge pages may always
  // continue to the range's end.
  absl::Duration step = absl::InfiniteDuration();
  HoldLimit limit;
};

// Thread-safe under the locks named. All functions require the VM's slots_lock
// unless they say otherwise: it keeps the slot, and guards the tables for
// splits. A range is a part of its slot. `cost` may be null and is added to.
class Mmu {
 public:
  virtual ~Mmu() = default;
  Mmu() = default;
  Mmu(const Mmu&) = delete;
  Mmu& operator=(const Mmu&) = delete;

  virtual MmuKind kind() const = 0;

  // Whether an SPTE of this MMU may map a page of the slot. If not, no function
  // below has work to do for the slot or takes a lock. Needs no lock; the event
  // that makes the answer true happens before the first such SPTE.
  virtual bool MayMap(const Memslot& slot) const = 0;

  // --- These take mmu_lock themselves, in the mode that they need. ---

  // Called when the slot begins to log (DL-02): splits its huge pages if
  // requested, then re-protects all of its pages; or the other way round. The
  // caller flushes TLBs before any code relies on the protection, unless
  // SplitOutcome::flushed says that this was done.
  virtual SplitOutcome EnableLog(const Memslot& slot, const LogPlan& plan,
                                 MmuCost* cost) = 0;

  // Splits huge pages that overlap `range` (TDP-60..66, SHD-70). Best effort.
  virtual SplitOutcome Split(const Memslot& slot, GfnRange range,
                             const SplitPlan& plan, MmuCost* cost) = 0;

  // Merges small pages into huge ones, or makes way for huge pages (TDP-52,
  // SHD-82). Flushes. REQUIRES: the slot does not log.
  virtual RecoverOutcome Recover(const Memslot& slot, GfnRange range,
                                 MmuCost* cost, const HoldLimit& limit) = 0;

  // Zaps the whole VM quickly (TDP-33, SHD-24): on return no vCPU uses an SPTE
  // from before the call.
  virtual void FastZapAll(LockOp op, MmuCost* cost) = 0;

  // Zaps one in `ratio`, rounded up, of the tables that were split because the
  // guest executed from them, oldest first; those for which `keep` is true are
  // only taken off the list (SPTE-53). Returns the number of zapped tables.
  // Does not require slots_lock. An MMU that splits nothing for execution zaps
  // none.
  virtual uint64_t RecoverNxHugePages(
      uint32_t /*ratio*/, absl::FunctionRef<bool(const ShadowPage&)> /*keep*/,
      MmuCost* /*cost*/) {
    return 0;
  }

  // Called after a slot was made or deleted: the memslots now have `pages`
  // pages in all. An MMU without a limit that follows from them has nothing to
  // do.
  virtual void SlotsChanged(uint64_t /*pages*/, MmuCost* /*cost*/) {}

  // Called after a slot was made, deleted or moved, or stopped logging: frees
  // tables that were kept for splits of logging slots (ARM-30). An MMU that
  // keeps none has nothing to do.
  virtual void FreeSplitTables() {}

  // The maximum number of shadow pages (SLOT-30). 0: this MMU has no limit.
  // Needs no lock.
  virtual uint64_t shadow_page_limit() const { return 0; }
  // Sets the limit; INVALID_ARGUMENT (EINVAL) if it is not allowed (SHD-29).
  // REQUIRES: this MMU has a limit.
  virtual absl::Status SetShadowPageLimit(uint64_t /*pages*/,
                                          MmuCost* /*cost*/) {
    return absl::OkStatus();
  }

  // The guest's word of `bytes` (4 or 8) at `gpa` of address space `as_id` was
  // written by emulation: drops everything that was made from its old value
  // (SHD-40). `memory` reads the word. Called without slots_lock. An MMU that
  // makes nothing from guest memory has nothing to do.
  virtual void GuestWrote(int /*as_id*/, Gpa /*gpa*/, int /*bytes*/,
                          GuestWords& /*memory*/, MmuCost* /*cost*/) {}

  // --- These work under the caller's hold, so that MMUs change as one. ---

  // Zaps every leaf that maps a page of `range` in each root, a larger leaf as
  // a whole. Flushes before it yields and once at the end if it zapped anything
  // (TDP-37, SHD-18). True if anything was zapped. Instead of slots_lock, an
  // announced invalidation may keep the slot (SLOT-23).
  virtual bool ZapLeafs(MmuWriteLocked& lock, const Memslot& slot,
                        GfnRange range, FlushReason reason, MayYield may_yield,
                        MmuCost* cost) = 0;

  // Called before the slot, which is invalid, is removed: zaps all of its
  // mappings, and drops all other state of the slot (SLOT-28). Flushes.
  virtual void ForgetSlot(MmuWriteLocked& lock, const Memslot& slot,
                          MmuCost* cost) = 0;

  // Like Split, to `target`, for a clear (DL-26). May release the lock.
  virtual SplitOutcome SplitForClear(MmuWriteLocked& lock, const Memslot& slot,
                                     GfnRange range, Level target,
                                     MmuCost* cost) = 0;

  // Re-protects the leafs of level 1 of `pages`, all in the slot (DL-15).
  // Larger leafs are left alone on x86, and protected on stage 2 (DL-17). The
  // caller flushes. Adds to `also` if it protects more at a time than one page.
  virtual void Reprotect(MmuWriteLocked& lock, const Memslot& slot,
                         absl::Span<const PageMask> pages, NoticeBy notice_by,
                         AlsoProtected& also, MmuCost* cost) = 0;

  // Whether a clear protects its pages before it splits their huge pages, as
  // arm64 does (DL-17). All MMUs of a VM agree.
  virtual bool ProtectsBeforeSplit() const { return false; }

  // Clears W and MMU-writable in the leafs of at least `min_level` that map
  // `gfn` (TDP-56). True if something changed: the caller flushes before it
  // releases the lock. An RCU read section may keep the slot instead of
  // slots_lock. Nothing to do in an MMU beside which no shadow pages exist, and
  // whose Reprotect protects huge pages.
  virtual bool WriteProtectGfn(const MmuWriteLocked& /*lock*/,
                               const Memslot& /*slot*/, Gfn /*gfn*/,
                               Level /*min_level*/) {
    return false;
  }

  // --- Before the log is sealed or counted. No lock is required. ---

  // Moves pages that only this MMU has recorded as dirty into the open epoch of
  // the log. An MMU whose faults and vCPUs mark pages records none.
  virtual absl::Status CollectDirty(MmuCost* /*cost*/) {
    return absl::OkStatus();
  }

  // --- Without mmu_lock, in an RCU read section, unless the MMU ages with it.

  // The lock that Age takes; constant. With kWrite, Age is called outside of
  // RCU read sections (AGE-19).
  virtual AgingLock aging_lock() const = 0;
  // Whether Age waits for no other thread, however busy the VM is (AGE-30,
  // AGE-32). A lock that happens to be free does not count.
  bool AgesFast() const { return aging_lock() == AgingLock::kNone; }

  // Whether the host's request to age and flush flushes the pages that were
  // young. x86 answers it without a flush (AGE-16).
  virtual bool FlushesAged() const { return false; }

  // Whether vCPUs may use a mapping of this MMU at present. If not, none of its
  // pages is young (AGE-10).
  virtual bool MayBeInUse() const = 0;

  // Whether at most one leaf of this MMU maps a page. Otherwise its results
  // need result.mapped.
  virtual bool MapsPagesOnce() const { return true; }

  // Tests, or tests and clears, the Accessed bits of the leafs that map pages
  // of `range` of address space `as_id` of `slots`, and adds the
  // results to `result`, whose bitmap of young pages covers `range` and may
  // cover more. If result.mapped is not empty it is filled in, and the caller
  // computes the counts (CountPages). No flush (AGE-16). Does not require
  // slots_lock. An MMU that ages without mmu_lock is called for parts of a GiB,
  // each in a read section of its own. An MMU that cannot leave out tables
  // ignores `scan`.
  virtual void Age(const MemslotTable& slots, int as_id, GfnRange range,
                   AgeMode mode, AgeScan scan, AgeResult& result,
                   MmuCost* cost) const = 0;

  // --- For external observers. ---

  // Appends tables to listing.pages from listing.position on, until the list is
  // full, the budget is used up, or there are no more tables: then returns
  // true. Holds a lock no longer than for a piece of the work. Does not require
  // slots_lock.
  virtual bool List(ShadowPageLister& listing) const = 0;

  // Verifies the MMU's own invariants, and reports each leaf to `sink` for the
  // VM's invariants (vm/inspect/audit.h). REQUIRES: no vCPU runs; an RCU read
  // section.
  virtual void Audit(const MmuWriteLocked& lock, AuditSink& sink) const = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_MMU_MMU_H_
