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
// is returned. Interrupting mmuctl does not end the operation.
absl::Status WatchOperation(Context& context, const std::string& name);

// For a command that started or changed an operation: prints it, or watches
// it.
absl::Status ShowOperation(Context& context,
                           const google::longrunning::Operation& operation,
                           Watch watch);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_WATCH_H_
