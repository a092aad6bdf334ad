#include "mmu_core/vm/vcpu/fault_handler.h"

#include "absl/base/optimization.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/resolve_frame.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {
namespace {

// Handles a fault by `handle`, in an RCU read section: the slot that it finds
// there stays as it is until the section ends (SLOT-24). What maps something
// needs tables, of which some may be on their way back to their pool; and the
// section keeps them from getting there. So `handle` asks for them, if the vCPU
// has too few, and is called anew once there are enough:
//
//   1. section: slot found, fast page fault in vain, tables wanted
//   2. no section: tables taken from the pool, perhaps after a grace period;
//      meanwhile the slot may change or go
//   3. section: slot found, fast page fault, frame, mmu_lock, map
//
// The tables are this vCPU's alone, so they are there in 3. If `error` is not
// OK when it returns, the result means nothing.
template <typename Fn>
FaultResult InRcuSectionWithTables(Vcpu& vcpu, absl::Status* error, Fn handle) {
  for (;;) {
    bool wants_tables = false;
    {
      RcuReadGuard rcu;
      const FaultResult result = handle(&wants_tables);
      if (ABSL_PREDICT_TRUE(!wants_tables)) return result;
    }
    *error = vcpu.table_cache().TopUp(TdpMmu::kTablesPerFault);
    if (ABSL_PREDICT_FALSE(!error->ok())) return FaultResult::kRetry;
  }
}

// Whether the vCPU has to get tables before it can map something.
bool WantsTables(Vcpu& vcpu) {
  return vcpu.table_cache().count() < TdpMmu::kTablesPerFault;
}

// PF-20..25 and the map itself. `cost` is null if the fault is not timed. If
// `error` is not OK when it returns, the result means nothing. REQUIRES: the
// vCPU has its tables.
FaultResult HandleSlow(VmCore& vm, Vcpu& vcpu, PageFault& fault, MmuCost* cost,
                       absl::Status* error) {
  if (ABSL_PREDICT_FALSE(!ResolveFrame(vm.invalidations, fault, error))) {
    return FaultResult::kRetry;
  }

  AtHook(HookPoint::kFrameToLock);
  MmuReadLocked lock(vm.mmu_lock, LockOp::kFault, cost);
  // What was looked up without the lock may be out of date (PF-05, PF-25).
  if (vcpu.root() == nullptr || vcpu.root()->IsInvalid() ||
      vm.invalidations.RetryNeeded(fault.invalidate_sequence, fault.gfn)) {
    return FaultResult::kRetry;
  }
  return vm.tdp.Map(lock, *vcpu.root(), fault, vcpu.table_cache());
}

// No memory at this gfn (PF-24). The next access there shall not have to find
// that out again: the vCPU remembers it, and so does an MMIO SPTE.
FaultResult HandleNoSlot(VmCore& vm, Vcpu& vcpu, PageFault& fault,
                         uint64_t generation, bool* wants_tables) {
  // While a swap goes on nothing is cached (SLOT-22).
  if ((generation & kGenerationInProgress) != 0) return FaultResult::kEmulate;
  vcpu.mmio_cache().Remember(fault.gfn, generation);
  if (vm.config.mmio_caching == VmConfig::MmioCaching::kNo ||
      !vm.mmio.enabled() || fault.gfn > vm.mmio.max_gfn() ||
      fault.gfn.value() > vm.slots.max_gfn()) {
    return FaultResult::kEmulate;  // SPTE-45
  }
  if (WantsTables(vcpu)) {
    *wants_tables = true;
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
                   MmuCost* cost, bool* wants_tables, absl::Status* error) {
  const MemslotSet& slots = vm.slots.Active(/*as_id=*/0);
  fault.slot = vcpu.memslot_hint().Find(slots, fault.gfn);
  AtHook(HookPoint::kSlotToFault);
  if (ABSL_PREDICT_FALSE(fault.slot == nullptr)) {
    return HandleNoSlot(vm, vcpu, fault, slots.generation(), wants_tables);
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
    *wants_tables = true;
    return FaultResult::kRetry;
  }
  return HandleSlow(vm, vcpu, fault, cost, error);
}

}  // namespace

void CountFaultTime(VcpuStats& stats, const PageFault& fault, bool fast,
                    int64_t nanos, int64_t lock_wait_nanos) {
  (fast ? stats.fault_fast : stats.fault_slow)
      .Record(nanos, Vcpu::kFaultSampling);
  stats.AddStall(StallCause::kLock, lock_wait_nanos * Vcpu::kFaultSampling);
  const int64_t rest = (nanos - lock_wait_nanos) * Vcpu::kFaultSampling;
  if (fault.split_huge_page) {
    stats.AddStall(StallCause::kSplit, rest);
  } else if (fault.present && fault.kind == AccessKind::kWrite) {
    stats.AddStall(StallCause::kWriteProtect, rest);
  }
}

absl::StatusOr<FaultResult> HandleFault(VmCore& vm, Vcpu& vcpu, Gfn gfn,
                                        AccessKind kind, bool present) {
  VcpuStats& stats = vcpu.stats();
  const bool timed = vcpu.TimesThisFault();

  MmuCost cost;
  const int64_t begin = timed ? MonotonicNanos() : 0;
  PageFault fault;
  fault.gfn = gfn;
  fault.kind = kind;
  fault.present = present;
  fault.ring = vcpu.dirty_ring();
  bool fast = false;
  absl::Status error;
  const FaultResult result =
      InRcuSectionWithTables(vcpu, &error, [&](bool* wants_tables) {
        return Handle(vm, vcpu, fault, &fast, timed ? &cost : nullptr,
                      wants_tables, &error);
      });
  if (ABSL_PREDICT_FALSE(timed)) {
    CountFaultTime(stats, fault, fast, MonotonicNanos() - begin,
                   absl::ToInt64Nanoseconds(cost.lock_wait));
  }
  if (fault.marked_dirty) {
    stats.dirty_pages.Add();
    if (present && kind == AccessKind::kWrite) stats.dirty_log_faults.Add();
  }
  if (fault.mmio_spte_created) stats.pf_mmio_spte_created.Add();
  if (ABSL_PREDICT_FALSE(!error.ok())) {
    stats.CountFaultError(kind);
    return error;
  }
  stats.CountFault(
      result, kind,
      fast ? VcpuStats::FaultPath::kFast : VcpuStats::FaultPath::kSlow);
  return result;
}

absl::StatusOr<PrefetchResult> HandlePrefetch(VmCore& vm, Vcpu& vcpu, Gfn gfn,
                                              Level* level) {
  if (absl::Status status = vcpu.EnsureRoot(); !status.ok()) return status;
  // Before the section, as for a fault, of which this is the slow path.
  if (absl::Status status = vcpu.table_cache().TopUp(TdpMmu::kTablesPerFault);
      !status.ok()) {
    return status;
  }
  RcuReadGuard rcu;
  PageFault fault;
  fault.gfn = gfn;
  fault.prefetched = Prefetched::kYes;
  fault.ring = vcpu.dirty_ring();
  fault.slot = vm.slots.Active(/*as_id=*/0).FindByGfn(gfn);
  if (fault.slot == nullptr) return PrefetchResult::kNoMemory;
  if (fault.slot->invalid()) return PrefetchResult::kSlotChanging;
  absl::Status error;
  const FaultResult result = HandleSlow(vm, vcpu, fault, nullptr, &error);
  if (fault.marked_dirty) vcpu.stats().dirty_pages.Add();
  if (!error.ok()) return error;
  if (result != FaultResult::kFixed && result != FaultResult::kSpurious) {
    return PrefetchResult::kRetry;
  }
  // What was there before may be larger or smaller than what was wanted.
  const TdpRoot& root = *vcpu.root();
  TdpCursor c(root.table(), root.level(), GfnRange::Of(gfn, 1), Level::k4K);
  c.DescendToFirst();
  if (!c.IsPresentLeaf()) return PrefetchResult::kRetry;
  *level = c.level();
  return PrefetchResult::kMapped;
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
