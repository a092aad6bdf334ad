// Waits for work with a progress display.

#ifndef CLIENT_MMUCTL_WATCH_H_
#define CLIENT_MMUCTL_WATCH_H_

#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/mmuctl/context.h"
#include "google/longrunning/operations.pb.h"

namespace mmud::client {

enum class Watch { kNo, kYes };

// Progress of the awaited work. A value.
struct WorkState {
  std::string title;            // "split"; the first one counts
  std::optional<double> share;  // if it is known
  std::string words;
  bool ended = false;
};
using ShowWork = absl::FunctionRef<void(const WorkState& state)>;

// Shows the progress of work until it has ended. `await` waits for the end and
// shows each state; after the given time it returns DEADLINE_EXCEEDED.
// Interrupting mmuctl does not end the work: the first Ctrl-C prints this,
// together with `end_command` ("op cancel ..."), the command that ends the
// work. The second Ctrl-C ends mmuctl. With --json or --quiet, where standard
// error has only an error or nothing, the first Ctrl-C ends mmuctl. Returns the
// error of `await`. If the time of --timeout was over, the error also names
// `end_command`.
absl::Status WatchWork(
    Context& context, const std::string& name, const std::string& end_command,
    absl::FunctionRef<absl::Status(absl::Duration limit, ShowWork show)> await);

// Watches the operation until it is done, and returns it, failed or not.
absl::StatusOr<google::longrunning::Operation> AwaitOperation(
    Context& context, const std::string& name);

// The same, and then prints the operation. Returns the operation's error.
absl::Status WatchOperation(Context& context, const std::string& name);

// For a command that started or changed an operation: prints or watches the
// operation.
absl::Status ShowOperation(Context& context,
                           const google::longrunning::Operation& operation,
                           Watch watch);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_WATCH_H_
