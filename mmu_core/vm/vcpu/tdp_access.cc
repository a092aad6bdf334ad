// The accesses of a vCPU by guest-physical address.

#include <cerrno>
#include <cstdint>
#include <utility>

#include "absl/base/optimization.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/tlb/vcpu_tlb.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/access_loop.h"
#include "mmu_core/vm/vcpu/fault_handler.h"
#include "mmu_core/vm/vcpu/hardware_walk.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"
#include "mmu_core/vm/vcpu/stage2_vcpu.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {

AccessOutcome Vcpu::AccessShadow(Gpa gpa, AccessKind kind, uint64_t* word) {
  const GuestPageAccess access = {.kind = kind,
                                  .privilege = second_stage_privilege_};
  GuestFault fault;
  const AccessOutcome outcome = shadow_->ContinueAccess(
      gpa.value() & ~uint64_t{7}, 8, access, word, &fault);
  if (outcome == AccessOutcome::kError) status_ = shadow_->status();
  if (outcome != AccessOutcome::kGuestFault) return outcome;
  status_ =
      MakeError(absl::StatusCode::kFailedPrecondition,
                {Reason::kGuestPageFault, "", EFAULT},
                Format("the guest's own tables do not allow an access to 0x%x; "
                       "access it through the guest's kernel",
                       gpa.value()));
  return AccessOutcome::kError;
}

// An access of a vCPU that runs on the TDP MMU.
class Vcpu::TdpAccess {
 public:
  TdpAccess(Vcpu& vcpu, Gpa gpa, AccessKind kind, uint64_t* word)
      : vcpu_(vcpu), gpa_(gpa), kind_(kind), word_(word) {}

  const TlbEntry* Lookup() {
    const TlbEntry* entry = vcpu_.tlb_.Lookup(page());
    return entry != nullptr && vcpu_.CanUse(*entry, kind_) ? entry : nullptr;
  }
  void Perform(const TlbEntry& entry) {
    Vcpu::Perform(entry, gpa_, kind_, word_);
  }
  bool HasRoot() const { return vcpu_.root_ && !vcpu_.root_->IsInvalid(); }
  absl::Status LoadRoot() { return vcpu_.LoadRoot(); }
  WalkResult Walk() {
    VmCore& vm = vcpu_.vm_;
    return HardwareWalk(vm.tdp.format(), vm.mmio, vm.memory, *vcpu_.root_,
                        gfn(), kind_,
                        vcpu_.cpu_dirty_log_on_ ? vcpu_.pml_.get() : nullptr,
                        vcpu_.tlb_.tables());
  }
  void Insert(const TlbEntry& entry) { vcpu_.tlb_.Insert(entry); }
  void AfterWalk() {
    if (vcpu_.pml_ != nullptr && !vcpu_.gate_.in_guest()) {
      vcpu_.DrainCpuDirtyLog();
    }
  }

  FaultStep Fault(const WalkResult& walk) {
    // The exit has drained the log, so there is room.
    if (walk.kind == WalkResult::Kind::kLogFull) return FaultStep::kTryAgain;
    if (walk.kind == WalkResult::Kind::kReserved) {
      const FaultResult mmio = HandleMmioFault(vcpu_.vm_, vcpu_, gfn());
      if (mmio == FaultResult::kEmulate) return FaultStep::kEmulate;
      if (mmio != FaultResult::kInvalid) return FaultStep::kTryAgain;
    }
    const bool present = walk.kind == WalkResult::Kind::kNotAllowed;
    // The fault itself makes the processor drop what it has cached for this
    // page. So granting more rights needs no remote flush (PF-18). Without a
    // paging-structure cache, a page that is not present has nothing cached.
    if (present || vcpu_.tlb_.tables() != nullptr) {
      vcpu_.tlb_.FlushPage(page());
    }
    const absl::StatusOr<FaultResult> result =
        HandleFault(vcpu_.vm_, vcpu_, gfn(), kind_, present);
    if (ABSL_PREDICT_FALSE(!result.ok())) {
      SetStatus(result.status());
      return FaultStep::kError;
    }
    return StepAfter(*result);
  }
  Gpa gpa() const { return Gpa(gpa_.value() & ~uint64_t{7}); }
  GuestWords& memory() { return vcpu_.shadow_->memory(); }
  int size_bytes() const { return sizeof(uint64_t); }
  uint64_t word() const { return *word_; }
  void SetStatus(absl::Status status) { vcpu_.status_ = std::move(status); }

 private:
  Gfn gfn() const { return ToGfn(gpa_); }
  PageNumber page() const { return ToPageNumber(gfn()); }

  Vcpu& vcpu_;
  const Gpa gpa_;
  const AccessKind kind_;
  uint64_t* const word_;
};

AccessOutcome Vcpu::ContinueAccess(Gpa gpa, AccessKind kind, uint64_t* word) {
  if (ABSL_PREDICT_FALSE(stage2_ != nullptr)) {
    const AccessOutcome outcome = stage2_->Access(gpa, kind, word);
    if (outcome == AccessOutcome::kError) status_ = stage2_->status();
    return outcome;
  }
  if (ABSL_PREDICT_FALSE(!runs_on_tdp_)) return AccessShadow(gpa, kind, word);
  return RunAccess(vm_, *this, TdpAccess(*this, gpa, kind, word));
}

}  // namespace mmu
