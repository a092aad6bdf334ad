// Resolves a gfn to the host's frame, before mmu_lock is taken.

#ifndef MMU_CORE_VM_VCPU_RESOLVE_FRAME_H_
#define MMU_CORE_VM_VCPU_RESOLVE_FRAME_H_

#include <cerrno>

#include "absl/base/optimization.h"
#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/frame_lender.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/memory/missing_frame.h"
#include "mmu_core/mmu/page_fault.h"

namespace mmu {

// Sets the frame and its writability in `fault` (PF-20, PF-23). Returns false
// in three cases:
//
//   `*error` is set           the fault fails with FAILED_PRECONDITION
//                             HOST_READ_ONLY (EFAULT), for the code that runs
//                             the vCPU
//   `missing` holds a frame   ask for that frame, then retry the fault
//   otherwise                 retry the fault
//
// REQUIRES: fault.slot is set, in the caller's RCU section.
inline bool FindFrame(const InvalidationGate& invalidations, PageFault& fault,
                      MissingFrame& missing, absl::Status* error) {
  fault.pfn = fault.slot->PfnOf(fault.gfn);
  fault.map_writable =
      fault.slot->readonly() ? HostWritable::kNo : HostWritable::kYes;
  if (ABSL_PREDICT_FALSE(!fault.slot->backing->all_writable())) {
    // If the frame gains rights after this look, the cost is another fault. If
    // the frame goes after this look, an invalidation takes it, and the fault
    // sees that invalidation under the lock like any other (RACE-48).
    const FrameState state = fault.slot->StateOf(fault.gfn);
    const bool write = fault.kind == AccessKind::kWrite;
    if (state == FrameState::kMissing ||
        (state == FrameState::kReadOnly && write)) {
      if (missing.Note(*fault.slot, fault.gfn, fault.kind,
                       fault.invalidate_sequence) ||
          state == FrameState::kMissing ||
          !missing.Refused(*fault.slot, fault.gfn, invalidations)) {
        return false;
      }
      *error =
          MakeError(absl::StatusCode::kFailedPrecondition,
                    {Reason::kHostReadOnly, "", EFAULT},
                    Format("the guest writes to gpa 0x%x, but the host lets "
                           "that page be read only; make it writable and run "
                           "the vCPU again",
                           ToGpa(fault.gfn).value()));
      return false;
    }
    if (state == FrameState::kReadOnly) fault.map_writable = HostWritable::kNo;
  }
  return true;
}

// As FindFrame; also sets the invalidation sequence (PF-21, PF-22).
inline bool ResolveFrame(const InvalidationGate& invalidations,
                         PageFault& fault, MissingFrame& missing,
                         absl::Status* error) {
  // The order matters: first the sequence, then the frame. An invalidation that
  // ends in between changes the sequence. One that is still going on is seen
  // under the lock.
  fault.invalidate_sequence = invalidations.snapshot();
  if (invalidations.MaybeInvalidating(fault.gfn)) return false;
  AtHook(HookPoint::kSequenceToFrame);
  return FindFrame(invalidations, fault, missing, error);
}

// Returns whether the fault is a write to a guest's page table that stays
// protected (PF-04). Returns false if the host forbids the write anyway, which
// ResolveFrame reports. REQUIRES: as ResolveFrame.
inline bool IsWriteTracked(const PageFault& fault) {
  if (fault.kind != AccessKind::kWrite) return false;
  return fault.slot->IsWriteTracked(fault.gfn) &&
         fault.slot->IsHostWritable(fault.gfn);
}

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_RESOLVE_FRAME_H_
