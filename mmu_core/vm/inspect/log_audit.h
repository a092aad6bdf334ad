// The auditor's part for a VM's dirty log, its vCPUs' dirty rings and their
// CPUs' logs: INV-10 and INV-15 to INV-17 (vm/inspect/audit.h).

#ifndef MMU_CORE_VM_INSPECT_LOG_AUDIT_H_
#define MMU_CORE_VM_INSPECT_LOG_AUDIT_H_

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "mmu_core/mmu/audit_sink.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {

// REQUIRES: no vCPU runs. Takes ring_harvest_mu.
void AuditLogs(VmCore& vm, const std::vector<std::unique_ptr<Vcpu>>& vcpus,
               AuditSink& sink)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock);

}  // namespace mmu

#endif  // MMU_CORE_VM_INSPECT_LOG_AUDIT_H_
