#include "mmu_core/vm/vcpu/fault_handler.h"

#include "absl/base/optimization.h"
#include "absl/status/status.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/memory/missing_frame.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/fault_accounting.h"
#include "mmu_core/vm/vcpu/fault_needs.h"
#include "mmu_core/vm/vcpu/mmio_fault.h"
#include "mmu_core/vm/vcpu/resolve_frame.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {
namespace {

// Returns whether the vCPU has to get tables before it can map a page.
bool WantsTables(Vcpu& vcpu) {
  return vcpu.table_cache().count() < TdpMmu::kTablesPerFault;
}

// Does PF-20..25 and the map operation. `cost` is null if the fault is not
// timed. If `error` is not OK on return, the result is meaningless. REQUIRES:
// the vCPU has its tables.
FaultResult HandleSlow(VmCore& vm, Vcpu& vcpu, PageFault& fault, MmuCost* cost,
                       MissingFrame& missing, absl::Status* error) {
  if (ABSL_PREDICT_FALSE(
          !ResolveFrame(vm.invalidations, fault, missing, error))) {
    return FaultResult::kRetry;
  }

  AtHook(HookPoint::kFrameToLock);
  MmuReadLocked lock(vm.mmu_lock, LockOp::kFault, cost);
  // The results of the lookups without the lock may be out of date (PF-05,
  // PF-25).
  if (vcpu.root() == nullptr || vcpu.root()->IsInvalid() ||
      vm.invalidations.RetryNeeded(fault.invalidate_sequence, fault.gfn)) {
    return FaultResult::kRetry;
  }
  return vm.tdp.Map(lock, *vcpu.root(), fault, vcpu.table_cache());
}

// Handles a fault on a gfn without memory (PF-24). The vCPU and an MMIO SPTE
// remember that, so that the next access needs no lookup.
FaultResult HandleNoSlot(VmCore& vm, Vcpu& vcpu, PageFault& fault,
                         uint64_t generation, FaultNeeds* needs) {
  // Nothing is cached during a swap of the memslots (SLOT-22).
  if ((generation & kGenerationInProgress) != 0) return FaultResult::kEmulate;
  vcpu.mmio_cache().Remember(fault.gfn, generation);
  if (!MayMakeMmioSpte(vm, fault.gfn)) return FaultResult::kEmulate;
  if (WantsTables(vcpu)) {
    needs->tables = true;
    return FaultResult::kRetry;
  }
  fault.mmio = vm.mmio.Make(fault.gfn, generation);
  MmuReadLocked lock(vm.mmu_lock, LockOp::kFault);
  if (vcpu.root() == nullptr || vcpu.root()->IsInvalid()) {
    return FaultResult::kRetry;
  }
  return vm.tdp.Map(lock, *vcpu.root(), fault, vcpu.table_cache());
}

FaultResult Handle(VmCore& vm, Vcpu& vcpu, PageFault& fault, bool* fast,
                   MmuCost* cost, FaultNeeds* needs, absl::Status* error) {
  const MemslotSet& slots = vm.slots.Active(/*as_id=*/0);
  fault.slot = vcpu.memslot_hint().Find(slots, fault.gfn);
  AtHook(HookPoint::kSlotToFault);
  if (ABSL_PREDICT_FALSE(fault.slot == nullptr)) {
    return HandleNoSlot(vm, vcpu, fault, slots.generation(), needs);
  }
  if (fault.slot->invalid()) return FaultResult::kRetry;  // SLOT-25
  if (fault.slot->readonly() && fault.kind == AccessKind::kWrite) {
    return FaultResult::kEmulate;  // PF-23
  }
  if (vcpu.root() == nullptr) return FaultResult::kRetry;  // PF-03
  if (ABSL_PREDICT_FALSE(IsWriteTracked(fault))) {
    return FaultResult::kWriteProtected;  // PF-04
  }
  const FaultResult result = vm.tdp.FastFault(*vcpu.root(), fault);
  if (result != FaultResult::kInvalid) {
    *fast = true;
    return result;
  }
  if (ABSL_PREDICT_FALSE(WantsTables(vcpu))) {
    needs->tables = true;
    return FaultResult::kRetry;
  }
  return HandleSlow(vm, vcpu, fault, cost, needs->frame, error);
}

absl::StatusOr<PrefetchResult> PrefetchInRcuSection(VmCore& vm, Vcpu& vcpu,
                                                    Gfn gfn,
                                                    MissingFrame& missing,
                                                    Level* level) {
  RcuReadGuard rcu;
  PageFault fault;
  fault.gfn = gfn;
  fault.prefetched = Prefetched::kYes;
  fault.ring = vcpu.dirty_ring();
  fault.slot = vm.slots.Active(/*as_id=*/0).FindByGfn(gfn);
  if (fault.slot == nullptr) return PrefetchResult::kNoMemory;
  if (fault.slot->invalid()) return PrefetchResult::kSlotChanging;
  absl::Status error;
  const FaultResult result =
      HandleSlow(vm, vcpu, fault, nullptr, missing, &error);
  vcpu.stats().dirty_pages.Add(fault.dirtied_pages);
  if (!error.ok()) return error;
  if (result != FaultResult::kFixed && result != FaultResult::kSpurious) {
    return PrefetchResult::kRetry;
  }
  // The existing mapping may be larger or smaller than the wanted one.
  const TdpRoot& root = *vcpu.root();
  TdpCursor c(root.table(), root.level(), GfnRange::Of(gfn, 1), Level::k4K);
  c.DescendToFirst();
  if (!c.IsPresentLeaf()) return PrefetchResult::kRetry;
  *level = c.level();
  return PrefetchResult::kMapped;
}

}  // namespace

absl::StatusOr<FaultResult> HandleFault(VmCore& vm, Vcpu& vcpu, Gfn gfn,
                                        AccessKind kind, bool present) {
  FaultAccounting accounting(MmuKind::kTdp, vcpu.stats(), vcpu.fault_ticks());
  PageFault fault;
  fault.gfn = gfn;
  fault.kind = kind;
  fault.present = present;
  fault.ring = vcpu.dirty_ring();
  bool fast = false;
  absl::Status error;
  const auto top_up = [&vcpu] {
    return vcpu.table_cache().TopUp(TdpMmu::kTablesPerFault);
  };
  const FaultResult result =
      InRcuSectionWithNeeds(top_up, &error, [&](FaultNeeds* needs) {
        return Handle(vm, vcpu, fault, &fast, accounting.cost(), needs, &error);
      });
  using Outcome = FaultAccounting::Outcome;
  accounting.Finish(
      fault, fast ? VcpuStats::FaultPath::kFast : VcpuStats::FaultPath::kSlow,
      error.ok() ? Outcome::kHandled : Outcome::kError, result);
  if (ABSL_PREDICT_FALSE(!error.ok())) return error;
  return result;
}

absl::StatusOr<PrefetchResult> HandlePrefetch(VmCore& vm, Vcpu& vcpu, Gfn gfn,
                                              Level* level) {
  if (absl::Status status = vcpu.EnsureRoot(); !status.ok()) return status;
  // Fills the table cache before the RCU read section, as the slow path of a
  // fault does.
  if (absl::Status status = vcpu.table_cache().TopUp(TdpMmu::kTablesPerFault);
      !status.ok()) {
    return status;
  }
  MissingFrame missing;
  absl::StatusOr<PrefetchResult> result =
      PrefetchInRcuSection(vm, vcpu, gfn, missing, level);
  if (ABSL_PREDICT_TRUE(!missing.noted())) return result;
  // The next try finds the frame, or asks for it again.
  if (absl::Status status = missing.Ask(); !status.ok()) return status;
  return PrefetchResult::kRetry;
}

FaultResult HandleMmioFault(VmCore& vm, Vcpu& vcpu, Gfn gfn) {
  RcuReadGuard rcu;
  const uint64_t current = vm.slots.Active(/*as_id=*/0).generation();
  if (vcpu.mmio_cache().Matches(gfn, current)) return FaultResult::kEmulate;
  const TdpRoot* root = vcpu.root();
  if (root == nullptr) return FaultResult::kRetry;
  TdpCursor c(root->table(), root->level(), GfnRange::Of(gfn, 1), Level::k4K);
  if (!c.Valid()) return FaultResult::kInvalid;
  c.DescendToFirst();
  const Spte spte = c.old_spte();
  if (spte.IsPresent() || !vm.mmio.IsMmio(spte)) return FaultResult::kRetry;
  AtHook(HookPoint::kMmioToCompare);
  if ((current & kGenerationInProgress) != 0 ||
      vm.mmio.GenerationOf(spte) != (current & kMmioGenerationMask)) {
    return FaultResult::kInvalid;  // SPTE-43
  }
  MMU_DCHECK(vm.mmio.GfnOf(spte) == gfn);
  vcpu.mmio_cache().Remember(gfn, current);
  return FaultResult::kEmulate;
}

}  // namespace mmu
