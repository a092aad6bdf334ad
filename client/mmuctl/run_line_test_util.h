// Running mmuctl in a test.

#ifndef CLIENT_MMUCTL_RUN_LINE_TEST_UTIL_H_
#define CLIENT_MMUCTL_RUN_LINE_TEST_UTIL_H_

#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "client/mmuctl/mmuctl.h"
#include "client/text/progress.h"

namespace mmud::client {

struct Result {
  int exit_code;
  std::string out;
  std::string err;
};

inline Result RunLine(std::vector<std::string> arguments) {
  std::istringstream in;
  std::ostringstream out, err;
  const int exit_code =
      RunMmuctl(std::move(arguments), in, out, err, ProgressStyle::kQuiet);
  return {exit_code, out.str(), err.str()};
}

inline bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_RUN_LINE_TEST_UTIL_H_
