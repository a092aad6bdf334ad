// Errors for people, and the exit codes that go with them.

#ifndef CLIENT_TEXT_ERROR_TEXT_H_
#define CLIENT_TEXT_ERROR_TEXT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/text/message_json.h"

namespace mmud::client {

// Exit codes of the programs of this folder.
enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,       // the work was done and its result is bad
  kExitUsage = 2,        // the command line is wrong; nothing was sent
  kExitRefused = 3,      // the daemon refused a value of the request
  kExitNotFound = 4,     // no such VM, memslot, workload, operation or file
  kExitConflict = 5,     // impossible in the present state
  kExitUnavailable = 6,  // no daemon there, or it is shutting down
  kExitTimeout = 7,      // the deadline passed
  kExitCancelled = 8,    // the operation was cancelled
  kExitExhausted = 9,    // a limit of the daemon is reached
  kExitInternal = 10,    // the daemon or the data is broken
};

// An error in the command line that only the command can detect: a status
// INVALID_ARGUMENT whose exit code is kExitUsage, since nothing was sent.
absl::Status UsageError(absl::string_view message);

// The exit code for a status.
ExitCode ExitCodeFor(const absl::Status& status);

// A table of the exit codes, for --help.
std::string ExitCodeHelp();

// The error and its fix, in lines:
//
//   error: slot 1 overlaps slot 0
//     field:  memslot.gpa_bytes
//     rule:   must not lie within another slot
//     reason: REGION_OVERLAP (errno=EEXIST)
//     fix:    show the VM's memslots: mmuctl vm get VM
//
// A fix has the VM's id if the error names the VM, otherwise "VM". `address` is
// the daemon's address; it may be empty. The command lines of a fix begin with
// `mmuctl`, which includes the options that reach the daemon.
std::string RenderError(const absl::Status& status, const std::string& address,
                        const std::string& mmuctl = "mmuctl");

// The same for programs, as one object:
//
//   {"error": {"code": "INVALID_ARGUMENT", "exit_code": 3, "message": "...",
//   "reason": "REGION_OVERLAP", "metadata": {"errno": "EEXIST"},
//   "field_violations": [{"field": "memslot.gpa_bytes", "rule": "..."}],
//   "preconditions": [], "resource_name": "", "retry_delay": null, "fix": "show
//   the VM's memslots: mmuctl vm get VM"}}
//
// Every key is always present. A value without contents is empty; `retry_delay`
// is then null, since a delay of 0 is not the same as no delay.
Json ErrorJson(const absl::Status& status, const std::string& address,
               const std::string& mmuctl = "mmuctl");

}  // namespace mmud::client

#endif  // CLIENT_TEXT_ERROR_TEXT_H_
