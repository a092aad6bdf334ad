// An operation as an argument, in a form that is shorter than a UUID.

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

// The name of the operation that `text` stands for. `text` is the operation's
// name or UUID, or a unique beginning of the UUID; or a VM, "alpha" or
// "vms/alpha", which stands for its newest running operation, or its newest
// operation if none is running. A whole name is not looked up: the daemon
// reports whether it exists. NOT_FOUND; INVALID_ARGUMENT if several operations
// begin with `text`.
absl::StatusOr<std::string> FindOperation(Client& client,
                                          absl::string_view text);

// The beginning of an operation's UUID that tables show.
std::string ShortOperationId(absl::string_view name);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_OPERATION_ARGUMENT_H_
