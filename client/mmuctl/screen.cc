#include "client/mmuctl/screen.h"

#include <unistd.h>

#include <cstdlib>
#include <iostream>

#include "absl/strings/string_view.h"
#include "client/mmuctl/context.h"

namespace mmud::client {
namespace {

absl::string_view Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

bool WritesToTerminal(Context& context) {
  return &context.out() == &std::cout && isatty(STDOUT_FILENO) == 1;
}

bool WritesColours(Context& context) {
  return WritesToTerminal(context) && Environment("NO_COLOR").empty() &&
         Environment("TERM") != "dumb";
}

}  // namespace mmud::client
