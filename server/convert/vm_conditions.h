// Vm.conditions: what is amiss with a VM, or holds it up.

#ifndef SERVER_CONVERT_VM_CONDITIONS_H_
#define SERVER_CONVERT_VM_CONDITIONS_H_

#include <vector>

#include "mmud/v1/vm_service.pb.h"
#include "server/control/managed_vm.h"

namespace mmud {

// All that hold now, in the order of their types. The one place that knows
// which there are.
std::vector<v1::VmCondition> ConditionsOf(const ManagedVm& vm);

}  // namespace mmud

#endif  // SERVER_CONVERT_VM_CONDITIONS_H_
