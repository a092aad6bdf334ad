#include "mmu_core/vm/vcpu/shadow_fault.h"

#include <cerrno>
#include <utility>

#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/memory/missing_frame.h"
#include "mmu_core/mmu/page_fault.h"
#include "mmu_core/shadow/shadow_mmu.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/fault_accounting.h"
#include "mmu_core/vm/vcpu/mmio_fault.h"
#include "mmu_core/vm/vcpu/resolve_frame.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {
namespace {

// The state of one fault; the steps are in the order in which they are called.
class Handler {
 public:
  Handler(VmCore& vm, Vcpu& vcpu, ShadowVcpu& shadow, uint64_t address,
          const GuestPageAccess& access, MmuCost* cost)
      : vm_(vm),
        vcpu_(vcpu),
        shadow_(shadow),
        guest_(shadow.guest()),
        address_(address),
        access_(access),
        cost_(cost) {
    fault_.kind = access.kind;
    fault_.ring = vcpu.dirty_ring();
  }

  const PageFault& fault() const { return fault_; }
  bool fast() const { return fast_; }

  ShadowFaultOutcome Run(const WalkResult& walk) {
    fault_.present = walk.kind == WalkResult::Kind::kNotAllowed;
    do {
      if (!WalkGuest()) return std::move(outcome_);
      // The caches are filled between two sections, as in
      // vm/vcpu/fault_handler.cc. The walk of the guest's tables may be out of
      // date after a wait for a frame, so it is repeated.
      do {
        InRcuSection(walk);
      } while (wants_caches_ && TopUp());
    } while (missing_.noted() && AskForFrame());
    // The error's text is allocated, so not under mmu_lock (LCK-01).
    if (no_shadow_pages_) outcome_.status = vm_.shadow->pages().Exhausted();
    return std::move(outcome_);
  }

 private:
  void InRcuSection(const WalkResult& walk) {
    // The slot stays as it is until the section ends (SLOT-24).
    RcuReadGuard rcu;
    const MemslotSet& slots = vm_.slots.Active(/*as_id=*/0);
    fault_.slot = vcpu_.memslot_hint().Find(slots, fault_.gfn);
    outcome_.result = fault_.slot == nullptr
                          ? WithoutSlot(slots.generation(), walk)
                          : WithSlot();
  }

  // Fills the caches. On failure sets the outcome and returns false.
  bool TopUp() {
    wants_caches_ = false;
    outcome_.status = guest_.caches.TopUpForFault(IndirectPagesOf());
    return outcome_.status.ok();
  }

  // Asks for the missing frame. If there is none to be had, sets the outcome
  // and returns false.
  bool AskForFrame() {
    outcome_.status = missing_.Ask();
    return outcome_.status.ok() && !missing_.not_yet();
  }

  // Asks for the frame of a guest's page table that the walk needs, for a write
  // if it has to set the Dirty bit there. Returns false if it cannot be asked
  // for, if this fault has asked for it already, or if no frame came; also, and
  // sets the outcome, if the write is refused. `sequence`: as
  // MissingFrame::Note, from before the walk.
  bool AskForTable(Gfn table, AccessKind kind, uint64_t sequence) {
    {
      RcuReadGuard rcu;
      const Memslot* slot = vm_.slots.Active(/*as_id=*/0).FindByGfn(table);
      if (slot == nullptr || slot->invalid()) return false;
      if (!missing_.Note(*slot, table, kind, sequence)) {
        if (kind == AccessKind::kWrite &&
            missing_.Refused(*slot, table, vm_.invalidations)) {
          outcome_.status = DirtyForbidden();
        }
        return false;
      }
    }
    return AskForFrame();
  }

  absl::Status DirtyForbidden() const {
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        {Reason::kHostReadOnly, "", EFAULT},
        Format("the guest writes to address 0x%x, so the walk must "
               "set the Dirty bit in its page table, but the host "
               "maps that table read-only; make it writable and run "
               "the vCPU again",
               address_));
  }

  IndirectPages IndirectPagesOf() const {
    return guest_.has_guest_tables() ? IndirectPages::kPossible
                                     : IndirectPages::kNone;
  }

  // Walks the guest's own tables. Sets the outcome and returns false if they do
  // not allow the access (SHD-46), if they cannot be read now, if the Dirty bit
  // cannot be set now, or if the dirty ring is full: the vCPU's loop then waits
  // for room before it tries again (DL-42).
  bool WalkGuest() {
    if (!guest_.has_guest_tables()) {
      fault_.gfn = Gfn(address_ >> kPageShift);
      outcome_.gpa = Gpa(address_);
      return true;
    }
    for (;;) {
      const uint64_t sequence = vm_.invalidations.snapshot();
      walk_ =
          guest_.walker.Walk(guest_.memory, shadow_.where(), address_, access_);
      const bool missing = walk_.kind == GuestWalkResult::Kind::kFrameMissing;
      if (!missing && !walk_.dirty_update_forbidden) break;
      const Gfn table = walk_.step(walk_.level).table;
      outcome_.gpa = ToGpa(table);
      if (!AskForTable(table, missing ? AccessKind::kRead : AccessKind::kWrite,
                       sequence)) {
        return false;
      }
    }
    if (walk_.kind == GuestWalkResult::Kind::kRingFull) return false;
    if (!walk_.translated()) {
      outcome_.guest = walk_.fault;
      return false;
    }
    fault_.gfn = walk_.gfn;
    outcome_.gpa = ToGpa(walk_.gfn) + (address_ & kPageMask);
    return true;
  }

  FaultResult WithoutSlot(uint64_t generation, const WalkResult& walk) {
    // Nothing is cached during a swap of the memslots (SLOT-22).
    if ((generation & kGenerationInProgress) != 0 ||
        !MayMakeMmioSpte(vm_, fault_.gfn)) {
      return FaultResult::kEmulate;
    }
    fault_.mmio = vm_.mmio.Make(fault_.gfn, generation);
    // The MMIO SPTE that the walk met agrees with the memslots as they are now
    // (PF-35).
    if (walk.mmio == fault_.mmio) {
      met_current_mmio_ = true;
      return FaultResult::kEmulate;
    }
    if (WantsCaches()) return FaultResult::kRetry;
    return Map();
  }

  FaultResult WithSlot() {
    if (fault_.slot->invalid()) return FaultResult::kRetry;  // SLOT-25
    if (fault_.slot->readonly() && fault_.kind == AccessKind::kWrite) {
      return FaultResult::kEmulate;  // PF-23
    }
    if (shadow_.roots().table() == nullptr) return FaultResult::kRetry;
    if (IsWriteTracked(fault_)) return FaultResult::kWriteProtected;  // PF-04
    const ShadowPageState* const top = shadow_.roots().TopPage(address_);
    if (!guest_.has_guest_tables() && top != nullptr) {  // PF-11
      const FaultResult result = vm_.shadow->faults().FastFault(*top, fault_);
      if (result != FaultResult::kInvalid) {
        fast_ = true;
        return result;
      }
    }
    if (WantsCaches()) return FaultResult::kRetry;
    if (!ResolveFrame(vm_.invalidations, fault_, missing_, &outcome_.status)) {
      return FaultResult::kRetry;
    }
    return Map();
  }

  // Returns whether the caches have to be filled before a page can be mapped.
  bool WantsCaches() {
    wants_caches_ = guest_.caches.NeedTopUpForFault(IndirectPagesOf());
    return wants_caches_;
  }

  // REQUIRES: the caches are filled.
  FaultResult Map() {
    AtHook(HookPoint::kFrameToLock);
    MmuWriteLocked lock(vm_.mmu_lock, LockOp::kFault, cost_);
    // The results of the lookups without the lock may be out of date (PF-05,
    // PF-25).
    if (shadow_.roots().table() == nullptr || shadow_.roots().IsObsolete() ||
        (fault_.slot != nullptr &&
         vm_.invalidations.RetryNeeded(fault_.invalidate_sequence,
                                       fault_.gfn))) {
      return FaultResult::kRetry;
    }
    ShadowPageState* const top = shadow_.roots().TopPage(address_);
    if (top == nullptr) {
      // The guest's root table lies where there was no memory when the root was
      // loaded: the root has to be loaded again (ROLE-24).
      stale_root_ = true;
      return FaultResult::kRetry;
    }
    if (!shadow_.roots().MakeAvailable(lock, cost_)) {
      no_shadow_pages_ = true;
      return FaultResult::kRetry;
    }
    ShadowFaults& faults = vm_.shadow->faults();
    if (!guest_.has_guest_tables()) {
      return faults.MapDirect(lock, guest_, *top, fault_, cost_);
    }
    AccessRights rights = walk_.access;
    if (fault_.slot != nullptr && fault_.kind == AccessKind::kWrite &&
        access_.privilege != Privilege::kUser) {
      rights = AccessOfSupervisorWrite(guest_.cpu_role(), rights);
    }
    return faults.MapGuest(lock, guest_, *top, fault_, address_, walk_, rights,
                           cost_);
  }

 public:
  bool stale_root() const { return stale_root_; }
  // The access is one to a device, and no fault: nothing was missing (PF-02).
  bool met_current_mmio() const { return met_current_mmio_; }

 private:
  VmCore& vm_;
  Vcpu& vcpu_;
  ShadowVcpu& shadow_;
  GuestContext& guest_;
  const uint64_t address_;
  const GuestPageAccess access_;
  MmuCost* const cost_;
  PageFault fault_;
  GuestWalkResult walk_;
  MissingFrame missing_;
  bool fast_ = false;
  bool wants_caches_ = false;
  bool stale_root_ = false;
  bool met_current_mmio_ = false;
  bool no_shadow_pages_ = false;
  ShadowFaultOutcome outcome_;
};

}  // namespace

ShadowFaultOutcome HandleShadowFault(VmCore& vm, Vcpu& vcpu, ShadowVcpu& shadow,
                                     uint64_t address,
                                     const GuestPageAccess& access,
                                     const WalkResult& walk) {
  FaultAccounting accounting(MmuKind::kShadow, vcpu.stats(),
                             vcpu.fault_ticks());
  Handler handler(vm, vcpu, shadow, address, access, accounting.cost());
  ShadowFaultOutcome outcome = handler.Run(walk);
  if (handler.stale_root()) shadow.ReleaseRoots();
  if (handler.met_current_mmio()) return outcome;
  using Outcome = FaultAccounting::Outcome;
  accounting.Finish(handler.fault(),
                    handler.fast() ? VcpuStats::FaultPath::kFast
                                   : VcpuStats::FaultPath::kSlow,
                    outcome.status.ok() ? Outcome::kHandled : Outcome::kError,
                    outcome.result);
  // A fault of the guest has the result RETRY; only the fault itself is
  // counted.
  if (outcome.status.ok() && outcome.guest.has_value() &&
      outcome.guest->kind == GuestFault::Kind::kPageFault) {
    vcpu.stats().pf_guest.Add();
  }
  return outcome;
}

}  // namespace mmu
