// Finds the VM that a request is about.

#ifndef SERVER_RPC_WORKED_ON_VM_H_
#define SERVER_RPC_WORKED_ON_VM_H_

#include <string>

#include "google/protobuf/message.h"

namespace mmud {

// The VM that a call works on, taken from its field `vm` (a name, or a Vm
// message) or from the name of a resource in a VM; empty if there is none.
// CreateVm works on no existing VM. DeleteVm does not count: it ends the VM's
// other calls, so it must find a place however many there are.
std::string WorkedOnVm(const google::protobuf::Message& request);

}  // namespace mmud

#endif  // SERVER_RPC_WORKED_ON_VM_H_
