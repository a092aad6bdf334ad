// Vm.conditions: problems of a VM, and reasons why it is held up.

#ifndef SERVER_CONVERT_VM_CONDITIONS_H_
#define SERVER_CONVERT_VM_CONDITIONS_H_

#include <vector>

#include "mmud/v1/vm_service.pb.h"
#include "server/control/shown_vm.h"

namespace mmud {

// All conditions that hold, in the order of their types. This is the only
// code that knows all types.
std::vector<v1::VmCondition> ConditionsOf(const ShownVm& vm);

}  // namespace mmud

#endif  // SERVER_CONVERT_VM_CONDITIONS_H_
