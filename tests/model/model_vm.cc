#include "tests/model/model_vm.h"

#include "mmu_core/base/check.h"
#include "mmu_core/testing/vm_builder.h"

namespace mmu::testing {
namespace {

std::unique_ptr<Vm> Make(const ModelConfig& config, NxParameters& nx) {
  // No runs of the recovery worker: only operations recover.
  nx.SetRecovery({.ratio = 0, .period = absl::ZeroDuration()});
  MMU_CHECK(nx.SetNxHugePages(config.nx_huge_pages ? "force" : "off").ok());
  VmConfig vm = config.vm;
  vm.vcpu_count = config.vcpus;
  return MakeVmFrom(vm, nx);
}

}  // namespace

ModelVm::ModelVm(const ModelConfig& config, const Mistakes& mistakes)
    : nx_(ItlbMultihit::kNo),
      vm_(Make(config, nx_)),
      port_(*vm_, config),
      memory_(model_, PagesPerGranule(config.vm)),
      host_(*vm_, config, nx_, port_, model_, memory_, mistakes.owner) {
  if (!GuestHasTables(config.vm)) return;
  host_.MakeGuestSlot();
  guest_.emplace(*vm_, config, port_, memory_, mistakes.guest);
  guest_->Boot();
}

std::string ModelVm::Problem() const {
  if (!host_.problem().empty() || !guest_.has_value()) return host_.problem();
  return guest_->problem();
}

std::string ModelVm::Step(const Operation& op) {
  if (!Operation::IsOfGuestTables(op.kind)) {
    host_.Step(op);
  } else if (guest_.has_value()) {
    guest_->Step(op);
  }
  return Problem();
}

std::string ModelVm::CheckAll() {
  host_.CheckAll();
  if (guest_.has_value()) guest_->CheckTables();
  return Problem();
}

}  // namespace mmu::testing
