#include <signal.h>
#include <unistd.h>

#include <iostream>
#include <string>
#include <vector>

#include "client/mmuctl/mmuctl.h"
#include "client/text/progress.h"

int main(int argc, char** argv) {
  // Writing to a closed pipe returns an error instead of ending the process.
  signal(SIGPIPE, SIG_IGN);
  return mmud::client::RunMmuctl(
      std::vector<std::string>(argv + 1, argv + argc), std::cin, std::cout,
      std::cerr, mmud::client::StyleFor(STDERR_FILENO));
}
