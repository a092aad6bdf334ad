// A VM and its model, step by step.

#ifndef TESTS_MODEL_MODEL_VM_H_
#define TESTS_MODEL_MODEL_VM_H_

#include <memory>
#include <optional>
#include <string>

#include "mmu_core/vm/core/nx_parameters.h"
#include "mmu_core/vm/vm.h"
#include "tests/model/guest_port.h"
#include "tests/model/guest_steps.h"
#include "tests/model/host_steps.h"
#include "tests/model/model_config.h"
#include "tests/model/model_memory.h"
#include "tests/model/operation.h"
#include "tests/model/reference_model.h"

namespace mmu::testing {

// Mistakes of the owner of the log and of the guest. A value.
struct Mistakes {
  OwnerMistake owner = OwnerMistake::kNone;
  GuestMistake guest = GuestMistake::kNone;
};

// Thread-compatible. Each function returns "", or the first difference between
// the VM and the model; after a difference the object is of no more use.
class ModelVm {
 public:
  explicit ModelVm(const ModelConfig& config, const Mistakes& mistakes = {});

  // Performs one operation, and compares its result.
  std::string Step(const Operation& op);
  // Compares all of the VM with the model.
  std::string CheckAll();

 private:
  std::string Problem() const;

  NxParameters nx_;
  const std::unique_ptr<Vm> vm_;
  GuestPort port_;
  ReferenceModel model_;
  ModelMemory memory_;
  HostSteps host_;
  std::optional<GuestSteps> guest_;  // if the guest has tables of its own
};

}  // namespace mmu::testing

#endif  // TESTS_MODEL_MODEL_VM_H_
