// Waiting for an operation with a progress display.

#ifndef CLIENT_MMUCTL_WATCH_H_
#define CLIENT_MMUCTL_WATCH_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/mmuctl/context.h"
#include "google/longrunning/operations.pb.h"

namespace mmud::client {

enum class Watch { kNo, kYes };

// Shows how far the operation is until it is done, and returns it, failed or
// not. No longer than --timeout: DEADLINE_EXCEEDED. Interrupting mmuctl does
// not end the operation: the first Ctrl-C says so, with the command that does,
// and the second ends mmuctl.
absl::StatusOr<google::longrunning::Operation> AwaitOperation(
    Context& context, const std::string& name);

// The same, and prints it then. Its error is returned.
absl::Status WatchOperation(Context& context, const std::string& name);

// For a command that started or changed an operation: prints it, or watches
// it.
absl::Status ShowOperation(Context& context,
                           const google::longrunning::Operation& operation,
                           Watch watch);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_WATCH_H_
