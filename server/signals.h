// The signals that steer the daemon. They are blocked in all threads and waited
// for by one, so no code runs in a signal handler.

#ifndef SERVER_SIGNALS_H_
#define SERVER_SIGNALS_H_

#include <string>

namespace mmud {

// What came from outside. A value.
struct SignalRequest {
  bool reload = false;  // SIGHUP: read files anew; else: drain and end
  std::string name;     // "SIGTERM"
};

// Blocks SIGTERM, SIGINT and SIGHUP, and ignores SIGPIPE. A SIGINT or SIGHUP
// that the parent process made this process ignore stays ignored, as nohup
// wants it. Called before any thread is made, so that all threads inherit the
// mask.
void BlockSignals();

// Waits for the next signal. REQUIRES: BlockSignals was called.
SignalRequest WaitForSignal();

// From now on the next SIGTERM or SIGINT ends the process at once with code 1:
// an operator may be impatient. SIGHUP has no effect any more. Called once.
void ExitOnNextSignal();

}  // namespace mmud

#endif  // SERVER_SIGNALS_H_
