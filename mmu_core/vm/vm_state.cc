#include "mmu_core/vm/vm_state.h"

#include <memory>

namespace mmu {

VmState::VmState(const VmConfig& vm_config, TablePool& table_pool,
                 NxParameters& nx_parameters)
    : VmCore(vm_config, table_pool),
      runner(config, invalidations, vcpus),
      nx_recovery(*this, nx_parameters) {
  vcpu_runner = &runner;
  for (int i = 0; i < vm_config.vcpu_count; ++i) {
    vcpus.push_back(std::make_unique<Vcpu>(*this, i));
  }
}

VmState::~VmState() {
  runner.Stop();
  for (const auto& vcpu : vcpus) vcpu->ReleaseRoot();
}

}  // namespace mmu
