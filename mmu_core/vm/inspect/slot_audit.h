// The auditor's part for memslots and their generations: INV-18
// (vm/inspect/audit.h).

#ifndef MMU_CORE_VM_INSPECT_SLOT_AUDIT_H_
#define MMU_CORE_VM_INSPECT_SLOT_AUDIT_H_

#include "absl/base/thread_annotations.h"
#include "mmu_core/mmu/audit_sink.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// Checks the sets of memslots of all address spaces.
void AuditMemslots(const VmCore& vm, AuditSink& sink)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock);

// Checks an entry that is not present, which must be an MMIO SPTE: INV-3 if it
// is none.
void AuditMmioSpte(const VmCore& vm, const AuditedNonPresent& entry,
                   AuditSink& sink)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock);

}  // namespace mmu

#endif  // MMU_CORE_VM_INSPECT_SLOT_AUDIT_H_
