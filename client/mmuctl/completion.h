// Candidates for completing a command line in a shell.
//
// The scripts that the shells load are small and never change. For each request
// they run `mmuctl __complete -- WORDS`. It takes candidates from the command
// tree, and names of VMs, operations and methods from the daemon.

#ifndef CLIENT_MMUCTL_COMPLETION_H_
#define CLIENT_MMUCTL_COMPLETION_H_

#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "client/mmuctl/context.h"

namespace mmud::client {

struct CompletionCandidate {
  std::string word;
  std::string description;
};

struct Completion {
  std::vector<CompletionCandidate> candidates;
  bool files = false;  // names of files
};

// `words` are the words after "mmuctl" up to the cursor. The last one, which
// may be empty, is completed. Calls the daemon at the address in the words or
// the environment, for at most a second. If the daemon does not answer in time,
// its names are missing.
Completion Complete(const CLI::App& root, Context& context,
                    const std::vector<std::string>& words);

// For the scripts: a candidate and its description, with a tab between them, a
// line; or the line ":files".
std::string CompletionText(const Completion& completion);

// The script that `shell`, one of bash, zsh and fish, loads. NOT_FOUND.
absl::StatusOr<std::string> CompletionScript(const std::string& shell);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_COMPLETION_H_
