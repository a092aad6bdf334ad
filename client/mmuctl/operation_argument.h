// An operation as an argument: nobody types a UUID.

#ifndef CLIENT_MMUCTL_OPERATION_ARGUMENT_H_
#define CLIENT_MMUCTL_OPERATION_ARGUMENT_H_

#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/client.h"
#include "client/mmuctl/context.h"

namespace mmud::client {

// The operation as first argument, in any of the forms of FindOperation.
// `operation` is its name when the action runs.
CLI::Option* AddOperation(CLI::App* app, Context& context,
                          std::string* operation);

// The name of the operation that `text` means: its name or its UUID, of which
// the beginning is enough where no other begins so; or a VM, "alpha" or
// "vms/alpha", for its newest operation, one that runs before one that is done.
// What is whole is not looked for: the daemon says whether there is such an
// operation. NOT_FOUND; INVALID_ARGUMENT if several begin like that.
absl::StatusOr<std::string> FindOperation(Client& client,
                                          absl::string_view text);

// As much of an operation's UUID as people are shown in tables.
std::string ShortOperationId(absl::string_view name);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_OPERATION_ARGUMENT_H_
