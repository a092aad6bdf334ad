// Which VM a request is about.

#ifndef SERVER_RPC_WORKED_ON_VM_H_
#define SERVER_RPC_WORKED_ON_VM_H_

#include <string>

#include "google/protobuf/message.h"

namespace mmud {

// The VM that a call works on, as its field `vm` (a name, or the VM as it shall
// be) or the name of something in a VM says; empty if it says none. CreateVm
// works on none that there is. DeleteVm does not count: it ends what others do,
// so it must find a place whatever they have.
std::string WorkedOnVm(const google::protobuf::Message& request);

}  // namespace mmud

#endif  // SERVER_RPC_WORKED_ON_VM_H_
