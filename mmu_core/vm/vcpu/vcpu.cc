#include "mmu_core/vm/vcpu/vcpu.h"

#include <cerrno>
#include <cstddef>
#include <memory>
#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/mark_dirty.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/access_loop.h"
#include "mmu_core/vm/vcpu/fault_handler.h"
#include "mmu_core/vm/vcpu/hardware_walk.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu {

Vcpu::Vcpu(VmCore& vm, int index)
    : vm_(vm),
      index_(index),
      runs_on_tdp_(RunsOnTdp(vm.config)),
      second_stage_privilege_(vm.config.format == EntryFormat::kNpt &&
                                      vm.config.mmu == MmuMode::kTdpShadow
                                  ? Privilege::kUser
                                  : Privilege::kSupervisor),
      pml_(vm.cpu_dirty_log_entries() != 0 ? std::make_unique<PmlBuffer>()
                                           : nullptr),
      dirty_ring_(vm.has_dirty_rings() ? std::make_unique<DirtyRing>(
                                             vm.config.dirty_ring_entries,
                                             vm.cpu_dirty_log_entries())
                                       : nullptr),
      table_cache_(vm.pool) {
  if (vm.shadow != nullptr) shadow_ = std::make_unique<ShadowVcpu>(vm, *this);
  if (dirty_ring_ != nullptr) vm_.rings.push_back(dirty_ring_.get());
  vm_.vcpu_stats.push_back(&stats_);
  // Comes last: if memory for the rest runs out, no vCPU was added that
  // requests could be sent to.
  vm_.tlb.AddVcpu(&gate_);
}

Vcpu::~Vcpu() { vm_.tlb.RemoveVcpu(&gate_); }

AccessOutcome Vcpu::AccessShadow(Gpa gpa, AccessKind kind, uint64_t* word) {
  const GuestPageAccess access = {.kind = kind,
                                  .privilege = second_stage_privilege_};
  GuestFault fault;
  const AccessOutcome outcome =
      shadow_->Access(gpa.value() & ~uint64_t{7}, 8, access, word, &fault);
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
                        vcpu_.cpu_dirty_log_on_ ? vcpu_.pml_.get() : nullptr);
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
    // The fault itself makes the processor drop its translation of this page.
    // So granting more rights needs no remote flush (PF-18).
    if (present) vcpu_.tlb_.FlushPage(page());
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
  if (ABSL_PREDICT_FALSE(!runs_on_tdp_)) return AccessShadow(gpa, kind, word);
  return RunAccess(vm_, *this, TdpAccess(*this, gpa, kind, word));
}

bool Vcpu::HandleRequests() {
  const uint32_t requests = gate_.TakeRequests();
  if ((requests & kTlbFlush) != 0) {
    const int64_t begin = MonotonicNanos();
    tlb_.FlushAll();
    stats_.tlb_flush.Add();
    stats_.AddStall(StallCause::kFlush, MonotonicNanos() - begin);
  }
  if ((requests & kTlbFlush) != 0 && shadow_ != nullptr) {
    shadow_->tlb().FlushAll();
  }
  if ((requests & kFreeObsoleteRoots) != 0) {
    if (root_ && root_->IsInvalid()) ReleaseTdpRoot();
    if (shadow_ != nullptr) shadow_->FreeObsoleteRoots();
  }
  if ((requests & kUpdateCpuDirtyLog) != 0) {
    cpu_dirty_log_on_ = pml_ != nullptr &&
                        vm_.logging_slots.load(std::memory_order_relaxed) != 0;
  }
  if ((requests & kDirtyRingSoftFull) != 0 && dirty_ring_->SoftFull()) {
    gate_.AddRequests(kDirtyRingSoftFull);  // again, until there is room
    stats_.ring_full_exits.Add();
    return false;
  }
  return true;
}

void Vcpu::DrainPml() {
  RcuReadGuard rcu;
  const MemslotSet& slots = vm_.slots.Active(/*as_id=*/0);
  pml_->ForEach([&](Gpa gpa) {
    const Gfn gfn = ToGfn(gpa);
    // A page whose slot is gone, or does not log, is in no dirty log.
    const Memslot* slot = memslot_hint_.Find(slots, gfn);
    if (slot == nullptr) return;
    if (MarkPageDirty(*slot, gfn, dirty_ring())) stats_.dirty_pages.Add();
  });
  pml_->Reset();
  if (dirty_ring_ != nullptr && dirty_ring_->SoftFull()) {
    gate_.AddRequests(kDirtyRingSoftFull);
  }
}

void Vcpu::ReleaseRoot() {
  ReleaseTdpRoot();
  if (shadow_ != nullptr) shadow_->ReleaseRoots();
}

void Vcpu::ReleaseTdpRoot() {
  root_.reset();
  mmio_cache_.Forget();
  tlb_.FlushAll();
}

absl::Status Vcpu::LoadRoot() {
  ReleaseTdpRoot();
  absl::StatusOr<RootRef> root = vm_.tdp.LoadRoot(/*as_id=*/0, table_cache_);
  if (!root.ok()) return root.status();
  root_ = std::move(*root);
  // A new root starts with an empty TLB (TLB-04).
  vm_.tlb.CountVcpuFlush(MmuKind::kTdp, FlushReason::kRoot);
  return absl::OkStatus();
}

}  // namespace mmu
