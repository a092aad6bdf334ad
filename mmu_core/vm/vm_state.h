// A whole VM: its core, its vCPUs, its workload runner and its NX recovery.

#ifndef MMU_CORE_VM_VM_STATE_H_
#define MMU_CORE_VM_VM_STATE_H_

#include <memory>
#include <vector>

#include "mmu_core/paging/table_pool.h"
#include "mmu_core/vm/core/nx_parameters.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/jobs/nx_recovery.h"
#include "mmu_core/vm/run/workload_runner.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {

// Thread-safe as its members are. For vm.cc, the auditor, benchmarks and tests;
// everything else of a VM takes a VmCore.
struct VmState : VmCore {
  VmState(const VmConfig& vm_config, TablePool& table_pool,
          NxParameters& nx_parameters);
  ~VmState();

  std::vector<std::unique_ptr<Vcpu>> vcpus;  // constant after construction
  WorkloadRunner runner;
  NxRecovery nx_recovery;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_VM_STATE_H_
