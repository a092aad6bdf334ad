// A stage-2 fault of a vCPU, from the gfn to the mapping.

#ifndef MMU_CORE_VM_VCPU_STAGE2_FAULT_HANDLER_H_
#define MMU_CORE_VM_VCPU_STAGE2_FAULT_HANDLER_H_

#include <algorithm>

#include "absl/base/optimization.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/mmu/page_fault.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stage2/s2_walk.h"
#include "mmu_core/stage2/stage2_fault.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/fault_accounting.h"
#include "mmu_core/vm/vcpu/fault_needs.h"
#include "mmu_core/vm/vcpu/resolve_frame.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {

// One fault. Belongs to the vCPU's thread.
template <TableGeometry G>
class Stage2FaultHandler {
 public:
  Stage2FaultHandler(VmCore& vm, Vcpu& vcpu, Stage2State<G>& stage2,
                     S2Cache<G>& tables)
      : vm_(vm), vcpu_(vcpu), stage2_(stage2), tables_(tables) {}

  using Why = S2WalkResult::Kind;

  // `why`: how the walk ended, not kTranslated. Errors: the host has no table
  // or no frame, or lets the page be read only (ResolveFrame).
  absl::StatusOr<FaultResult> Handle(Gfn gfn, AccessKind kind, Why why) {
    FaultAccounting accounting(MmuKind::kStage2, vcpu_.stats(),
                               vcpu_.fault_ticks());
    PageFault fault;
    fault.gfn = gfn;
    fault.kind = kind;
    fault.present = why == Why::kPermissionFault;
    fault.ring = vcpu_.dirty_ring();
    absl::Status error;
    FaultResult result;
    if (why == Why::kAccessFlagFault) {
      MmuReadLocked lock(vm_.mmu_lock, LockOp::kFault, accounting.cost());
      result = SetAccessFlagStage2(stage2_, lock, gfn);
    } else {
      result = Map(fault, accounting.cost(), &error);
    }
    using Outcome = FaultAccounting::Outcome;
    accounting.Finish(fault, VcpuStats::FaultPath::kSlow,
                      error.ok() ? Outcome::kHandled : Outcome::kError, result);
    if (ABSL_PREDICT_FALSE(!error.ok())) return error;
    return result;
  }

 private:
  // As much memory as an x86 vCPU keeps for tables, but enough for a fault.
  static constexpr int kStock = std::max(
      kS2TablesPerFault<G>,
      static_cast<int>(S2Cache<G>::kCapacity* kPageSize / G::kGranuleBytes));

  FaultResult Map(PageFault& fault, MmuCost* cost, absl::Status* error) {
    return InRcuSectionWithNeeds(
        [this] { return tables_.TopUp(kS2TablesPerFault<G>, kStock); }, error,
        [&](FaultNeeds* needs) {
          return InSection(fault, cost, needs, error);
        });
  }

  FaultResult InSection(PageFault& fault, MmuCost* cost, FaultNeeds* needs,
                        absl::Status* error) {
    const MemslotSet& slots = vm_.slots.Active(/*as_id=*/0);
    fault.slot = vcpu_.memslot_hint().Find(slots, fault.gfn);
    AtHook(HookPoint::kSlotToFault);
    if (ABSL_PREDICT_FALSE(fault.slot == nullptr)) return FaultResult::kEmulate;
    if (fault.slot->invalid()) return FaultResult::kRetry;  // SLOT-25
    if (fault.slot->readonly() && fault.kind == AccessKind::kWrite) {
      return FaultResult::kEmulate;  // PF-23
    }
    if (ABSL_PREDICT_FALSE(tables_.count() < kS2TablesPerFault<G>)) {
      needs->tables = true;
      return FaultResult::kRetry;
    }
    if (ABSL_PREDICT_FALSE(
            !ResolveFrame(vm_.invalidations, fault, needs->frame, error))) {
      return FaultResult::kRetry;
    }
    AtHook(HookPoint::kFrameToLock);
    MmuReadLocked lock(vm_.mmu_lock, LockOp::kFault, cost);
    // The results of the lookups without the lock may be out of date (PF-25).
    if (vm_.invalidations.RetryNeeded(fault.invalidate_sequence, fault.gfn)) {
      return FaultResult::kRetry;
    }
    return MapStage2(stage2_, lock, fault, tables_);
  }

  VmCore& vm_;
  Vcpu& vcpu_;
  Stage2State<G>& stage2_;
  S2Cache<G>& tables_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_STAGE2_FAULT_HANDLER_H_
