// mmuctl: the API of mmud on the command line.

#ifndef CLIENT_MMUCTL_MMUCTL_H_
#define CLIENT_MMUCTL_MMUCTL_H_

#include <iosfwd>
#include <string>
#include <vector>

#include "client/text/progress.h"

namespace mmud::client {

// Runs one command line, without the name of the program, and returns the exit
// code (client/text/error_text.h). Results go to `out`; progress and errors to
// `err`; `in` is read where an argument is "-".
int RunMmuctl(std::vector<std::string> arguments, std::istream& in,
              std::ostream& out, std::ostream& err, ProgressStyle progress);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_MMUCTL_H_
