// What can stand at a place of a command line: for the shells.
//
// The scripts that the shells load are small and never change: with each
// request they run `mmuctl __complete -- WORDS`, which answers from the command
// tree, and for names of VMs, operations and methods from the daemon.

#ifndef CLIENT_MMUCTL_COMPLETION_H_
#define CLIENT_MMUCTL_COMPLETION_H_

#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "client/mmuctl/context.h"

namespace mmud::client {

struct Candidate {
  std::string word;
  std::string description;
};

struct Completion {
  std::vector<Candidate> candidates;
  bool files = false;  // names of files
};

// `words` are those after "mmuctl" up to the cursor; the last one, perhaps
// empty, is to be completed. Asks the daemon at the address that the words or
// the environment name, for at most a second; what it does not answer is
// missing.
Completion Complete(const CLI::App& root, Context& context,
                    const std::vector<std::string>& words);

// For the scripts: a candidate and its description, with a tab between them, a
// line; or the line ":files".
std::string CompletionText(const Completion& completion);

// The script that `shell`, one of bash, zsh and fish, loads. NOT_FOUND.
absl::StatusOr<std::string> CompletionScript(const std::string& shell);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_COMPLETION_H_
