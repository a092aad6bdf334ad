// Waiting for an operation with a progress display.

#ifndef CLIENT_MMUCTL_WATCH_H_
#define CLIENT_MMUCTL_WATCH_H_

#include <string>

#include "absl/status/status.h"
#include "client/mmuctl/context.h"
#include "google/longrunning/operations.pb.h"

namespace mmud::client {

enum class Watch { kNo, kYes };

// Shows how far the operation is until it is done, then prints it. Its error
// is returned. No longer than --timeout: DEADLINE_EXCEEDED. Interrupting mmuctl
// does not end the operation: the first Ctrl-C says so, with the command that
// does, and the second ends mmuctl.
absl::Status WatchOperation(Context& context, const std::string& name);

// For a command that started or changed an operation: prints it, or watches
// it.
absl::Status ShowOperation(Context& context,
                           const google::longrunning::Operation& operation,
                           Watch watch);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_WATCH_H_
