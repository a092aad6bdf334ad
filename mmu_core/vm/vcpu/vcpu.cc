#include "mmu_core/vm/vcpu/vcpu.h"

#include <cerrno>
#include <cstddef>
#include <memory>
#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/memory/mark_dirty.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/emulate_write.h"
#include "mmu_core/vm/vcpu/fault_handler.h"
#include "mmu_core/vm/vcpu/hardware_walk.h"
#include "mmu_core/vm/vcpu/held_back.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu {

Vcpu::Vcpu(VmCore& vm, int index)
    : vm_(vm),
      index_(index),
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
  // Last: without memory for the rest there is no vCPU that could be asked.
  vm_.tlb.AddVcpu(&gate_);
}

Vcpu::~Vcpu() { vm_.tlb.RemoveVcpu(&gate_); }

AccessOutcome Vcpu::AccessShadow(Gpa gpa, AccessKind kind, uint64_t* word) {
  const GuestPageAccess access = {
      .kind = kind,
      .privilege = vm_.config.format == EntryFormat::kNpt &&
                           vm_.config.mmu == MmuMode::kTdpShadow
                       ? Privilege::kUser
                       : Privilege::kSupervisor};
  GuestFault fault;
  switch (
      shadow_->Access(gpa.value() & ~uint64_t{7}, 8, access, word, &fault)) {
    case ShadowOutcome::kDone:
      return AccessOutcome::kDone;
    case ShadowOutcome::kEmulated:
      return AccessOutcome::kEmulated;
    case ShadowOutcome::kDirtyRingFull:
      return AccessOutcome::kDirtyRingFull;
    case ShadowOutcome::kError:
      status_ = shadow_->status();
      return AccessOutcome::kError;
    case ShadowOutcome::kGuestFault:
      break;
  }
  status_ = MakeError(
      absl::StatusCode::kFailedPrecondition, {"GUEST_PAGE_FAULT", "", EFAULT},
      Format("the guest's own tables do not allow an access to 0x%x; "
             "access it through the guest's kernel",
             gpa.value()));
  return AccessOutcome::kError;
}

AccessOutcome Vcpu::ContinueAccess(Gpa gpa, AccessKind kind, uint64_t* word) {
  if (ABSL_PREDICT_FALSE(!vm_.uses_tdp_mmu())) {
    return AccessShadow(gpa, kind, word);
  }
  const Gfn gfn = ToGfn(gpa);
  for (;;) {
    if (gate_.BeginAccess() != 0) {
      const Exit exit(*this);
      if (!HandleRequests()) return AccessOutcome::kDirtyRingFull;
      continue;
    }
    if (const TlbEntry* entry = tlb_.Lookup(gfn);
        entry != nullptr && CanUse(*entry, kind)) {
      Perform(*entry, gpa, kind, word);
      gate_.EndAccess();
      return AccessOutcome::kDone;
    }
    if (!root_ || root_->IsInvalid()) {
      gate_.EndAccess();
      const Exit exit(*this);
      if (status_ = LoadRoot(); !status_.ok()) return AccessOutcome::kError;
      continue;
    }
    const WalkResult walk =
        HardwareWalk(vm_.tdp.format(), vm_.mmio, vm_.memory, *root_, gfn, kind,
                     cpu_dirty_log_on_ ? pml_.get() : nullptr);
    if (walk.kind == WalkResult::Kind::kTranslated) {
      tlb_.Insert(walk.entry);
      Perform(walk.entry, gpa, kind, word);
      gate_.EndAccess();
      if (pml_ != nullptr && !gate_.in_guest()) DrainCpuDirtyLog();
      return AccessOutcome::kDone;
    }
    gate_.EndAccess();

    const Exit exit(*this);
    if (walk.kind == WalkResult::Kind::kLogFull) continue;  // it has room now
    if (walk.kind == WalkResult::Kind::kReserved) {
      const FaultResult mmio = HandleMmioFault(vm_, *this, gfn);
      if (mmio == FaultResult::kEmulate) return AccessOutcome::kEmulated;
      if (mmio != FaultResult::kInvalid) continue;
    }
    const bool present = walk.kind == WalkResult::Kind::kNotAllowed;
    // The fault itself makes the processor forget what it knew of this page;
    // that is why granting more needs no remote flush (PF-18).
    if (present) tlb_.FlushGfn(gfn);
    const absl::StatusOr<FaultResult> result =
        HandleFault(vm_, *this, gfn, kind, present);
    NoteRingFill();
    if (!result.ok()) {
      status_ = result.status();
      return AccessOutcome::kError;
    }
    if (*result == FaultResult::kEmulate) return AccessOutcome::kEmulated;
    if (ABSL_PREDICT_FALSE(*result == FaultResult::kRetry)) {
      status_ = AwaitRelease(vm_, *this, gfn,
                             [this] { return gate_.pending_requests() != 0; });
      if (!status_.ok()) return AccessOutcome::kError;
      continue;
    }
    if (ABSL_PREDICT_FALSE(*result == FaultResult::kWriteProtected)) {
      const EmulatedWrite write =
          EmulateGuestWrite(vm_, shadow_->memory(), Gpa(gpa.value() & ~7ull),
                            sizeof(uint64_t), *word);
      NoteRingFill();
      if (write == EmulatedWrite::kDone) return AccessOutcome::kDone;
      if (write == EmulatedWrite::kCannot) return AccessOutcome::kEmulated;
    }
  }
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
    // A page whose slot is gone, or does not log, is in nobody's log.
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
  vm_.tlb.CountVcpuFlush(FlushReason::kRoot);
  return absl::OkStatus();
}

}  // namespace mmu
