// The daemon, from the parsing of flags to the exit code.

#ifndef SERVER_DAEMON_H_
#define SERVER_DAEMON_H_

#include <functional>

#include "absl/status/status.h"
#include "server/services/daemon_state.h"

namespace mmud {

// The differences between the two programs, mmud and mmud_fault_injection.
struct DaemonVariant {
  BuildVariant build = BuildVariant::kRelease;
  // Called once after the flags are parsed; may be null. Its error is printed
  // and ends the program.
  std::function<absl::Status()> arm;
};

// Parses flags, serves until SIGTERM or SIGINT, drains. Returns the exit code:
// 0 after a drain, 1 if it could not start, 2 for bad flags or a bad
// configuration. Called first in main.
int RunDaemon(int argc, char** argv, const DaemonVariant& variant);

}  // namespace mmud

#endif  // SERVER_DAEMON_H_
